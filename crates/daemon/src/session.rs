//! One request, one answer. Nothing that a client sent is believed: lengths, kinds and fields are checked, and who asks is what
//! the kernel says of this very message.

use crate::closer::Foreign;
use crate::knock::{NO_FILES, refuse_connection};
use crate::listing::{self, Status};
use crate::server::{NOBODY, Server};
use ringway_abi::wire::{self, Kind};
use ringway_abi::*;
use ringway_core::control::{Asker, BindingId, ControlError, ReqOption, Tunables, check_options};
use ringway_core::handover::{grant_out, options_in, options_out, peer_out};
use ringway_core::lease::{BindingKey, Grant};
use ringway_core::nic::NicRequest;
use ringway_os::mem::Memfd;
use ringway_os::sock::{Conn, Creds, Message};
use std::os::fd::{AsFd, BorrowedFd};
use zerocopy::{FromBytes, IntoBytes};

/// A netmap descriptor: a connection, and what it has bound.
#[derive(Debug)]
pub struct Session {
    /// The connection. Requests come here; answers go to the reply sockets.
    pub conn: Conn,
    /// User that connected, for the limits.
    pub uid: u32,
    /// Process that bound it.
    pub pid: u32,
    /// What it has bound.
    pub binding: Option<BindingId>,
}

/// An answer: an errno with a text, or a body with fds.
pub(crate) struct Answer<'f> {
    body: Vec<u8>,
    fds: Vec<BorrowedFd<'f>>,
}

pub(crate) fn refuse(errno: Errno, text: impl Into<String>) -> ControlError {
    ControlError::new(errno, text)
}

fn send_answer(reply: &Conn, answer: &Result<Answer<'_>, ControlError>) {
    let sent = match answer {
        Ok(a) => reply.send(&wire::message(Kind::Reply, 0, &a.body), &a.fds),
        Err(e) => {
            let text = cut_text(&e.message);
            reply.send(&wire::message(Kind::Reply, e.errno.0, text.as_bytes()), &[])
        }
    };
    if let Err(e) = sent {
        tracing::debug!("a client did not take its answer: {e}");
    }
}

/// As much of an error's text as a message carries.
fn cut_text(text: &str) -> &str {
    let mut end = text.len().min(wire::MAX_TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The start of an answer to a CONTROL: head, nmreq body, options.
fn controlled(header: &nmreq_header, body: &[u8], options: &[ReqOption]) -> Vec<u8> {
    let (body_bytes, count) = (body.len() as u32, options.len() as u32);
    let head = wire::Controlled { header: *header, body_bytes, options: count };
    [head.as_bytes(), body, &options_out(options)].concat()
}

/// JSON in a memfd: listings are longer than messages.
fn json_fd<T: serde::Serialize>(value: &T) -> Result<Memfd, ControlError> {
    let fail = |e: &dyn std::fmt::Display| refuse(Errno::ENOMEM, format!("cannot make the listing: {e}"));
    let text = serde_json::to_vec(value).map_err(|e| fail(&e))?;
    let memfd = Memfd::create("ringway-listing", text.len().max(1)).map_err(|e| fail(&e))?;
    memfd.write_at_start(&text).map_err(|e| fail(&e))?;
    Ok(memfd)
}

impl Server {
    /// Serves one message of session `id`.
    pub(crate) fn serve(&mut self, id: u64, buf: &[u8], message: Message) {
        let (uid, creds) = match (message.creds, self.sessions.get(&id)) {
            (Some(creds), _) => (creds.uid, Some(creds)),
            (None, Some(session)) => (session.uid, None),
            (None, None) => (u32::MAX, None),
        };
        // From here on nothing that is dropped makes us wait. What the helper of the device file sends is its own, whomever it speaks for.
        let uid = if creds.is_some_and(|c| self.device.is_helper(c.pid)) { NOBODY } else { uid };
        let mut files = message.fds.into_iter().map(|fd| Foreign::new(fd, uid, &self.closers));
        let (reply, rest) = (files.next(), files.collect::<Vec<_>>());
        let no_files = || refuse(Errno::ENFILE, NO_FILES);
        if let (true, None, Some(session)) = (message.fds_lost, &reply, self.sessions.get(&id)) {
            // Not even the fd for the answer came.
            return refuse_connection(&session.conn, &no_files());
        }
        let (Some(creds), Some(reply)) = (creds, reply) else { return };
        if message.truncated {
            let too_long = || refuse(Errno::EMSGSIZE, "the message is too long");
            let e = Err(if message.fds_lost { no_files() } else { too_long() });
            return self.finish(reply, &e);
        }
        let (kind, body) = match wire::parse(buf) {
            Ok((_, kind, body)) => (kind, body),
            Err(e) => {
                let e = Err(refuse(Errno::EPROTO, e.to_string()));
                return self.finish(reply, &e);
            }
        };
        let who = Asker { uid: creds.uid };
        if rest.len() + 1 != kind.request_fds() {
            let e = Err(refuse(Errno::EPROTO, "wrong number of fds"));
            return self.finish(reply, &e);
        }
        match kind {
            Kind::Attach => {
                let answer = self.attach(creds, rest.into_iter().next());
                let answer = answer.map(|number| Answer {
                    body: wire::Attached { number }.as_bytes().to_vec(),
                    fds: vec![],
                });
                self.finish(reply, &answer);
            }
            Kind::Control => self.control(id, creds, body, reply),
            Kind::ControlIn => self.control_in(id, creds, body, reply, rest.first()),
            Kind::Join => {
                let grant = self.join(id, creds);
                let answer = grant.as_ref().map(grant_out).map(|(body, fds)| Answer { body, fds });
                self.finish(reply, &answer.map_err(Clone::clone));
            }
            Kind::Peer => {
                let peer = wire::take::<wire::PeerAsk>(&mut &*body)
                    .map_err(|e| refuse(Errno::EPROTO, e.to_string()))
                    .and_then(|ask| {
                        let index =
                            u8::try_from(ask.index).map_err(|_| refuse(Errno::EINVAL, "no such index"))?;
                        self.registry.peer_grant(self.insider_of(id, creds, BindingKey(ask.key))?, index)
                    });
                let answer = peer.as_ref().map(peer_out);
                let answer = answer.map(|(body, fds)| Answer { body, fds: fds.to_vec() });
                self.finish(reply, &answer.map_err(Clone::clone));
            }
            Kind::List => {
                self.reap_all();
                let pids: std::collections::HashMap<BindingId, u32> =
                    self.sessions.values().filter_map(|s| Some((s.binding?, s.pid))).collect();
                let ports: Vec<_> = self
                    .registry
                    .list(who)
                    .iter()
                    // What no session has bound, the broker itself has.
                    .map(|p| listing::port(p, |b| pids.get(&b).copied().unwrap_or_else(std::process::id)))
                    .collect();
                self.answer_json(reply, &ports);
            }
            Kind::Audit => {
                self.reap_all();
                let regions = self.worker.audit(&self.registry, who);
                let locks = self.registry.held_locks(who);
                let pid = |number| self.attachments.get(number).map_or(0, |a| a.pid);
                let audit = listing::audit(&regions, &locks, pid);
                self.answer_json(reply, &audit);
            }
            Kind::Status => {
                self.reap_all();
                let status = self.status();
                self.answer_json(reply, &status);
            }
            Kind::Tune => {
                let answer = self.tune(who, body).map(|body| Answer { body, fds: vec![] });
                self.finish(reply, &answer);
            }
            Kind::Stop => {
                let answer = if who.may(self.own_uid) {
                    self.stopping = true;
                    Ok(Answer { body: vec![], fds: vec![] })
                } else {
                    Err(refuse(Errno::EPERM, "only its own user and root may stop the broker"))
                };
                self.finish(reply, &answer);
            }
            Kind::Memory => {
                let asked = if self.device.is_helper(creds.pid) {
                    self.registry.user_memory(who.uid)
                } else {
                    Err(refuse(Errno::EPERM, "that is for the helper that serves the device file"))
                };
                // Its own copy, since answering needs all of us.
                let memory = asked.and_then(|memory| {
                    memory.as_fd().try_clone_to_owned().map_err(|e| refuse(Errno::EMFILE, e.to_string()))
                });
                let answer = memory.as_ref().map(|m| Answer { body: vec![], fds: vec![m.as_fd()] });
                self.finish(reply, &answer.map_err(Clone::clone));
            }
            Kind::Reply | Kind::Refused => {
                self.finish(reply, &Err(refuse(Errno::EPROTO, "a reply is no request")));
            }
        }
    }

    /// Sends the answer. A reply socket that is none, or none that can be used without waiting, gets nothing.
    pub(crate) fn finish(&self, reply: Foreign, answer: &Result<Answer<'_>, ControlError>) {
        match reply.socket() {
            Some(reply) => send_answer(reply, answer),
            None => tracing::debug!("a client sent no socket for its answer"),
        }
        // One request, one answer.
        drop(reply);
    }

    fn answer_json<T: serde::Serialize>(&self, reply: Foreign, value: &T) {
        match json_fd(value) {
            Ok(memfd) => self.finish(reply, &Ok(Answer { body: vec![], fds: vec![memfd.as_fd()] })),
            Err(e) => self.finish(reply, &Err(e)),
        }
    }

    pub(crate) fn control(&mut self, id: u64, creds: Creds, body: &[u8], reply: Foreign) {
        let mut rest = body;
        let Ok(control) = wire::take::<wire::Control>(&mut rest) else {
            return self.finish(reply, &Err(refuse(Errno::EPROTO, "message too short")));
        };
        let mut header = control.header;
        header.nr_name[NETMAP_REQ_IFNAMSIZ - 1] = 0;
        let parts = rest.split_at_checked(body_size(header.nr_reqtype));
        let parts = parts.and_then(|(body, mut rest)| {
            let options = options_in(control.options, &mut rest).ok()?;
            rest.is_empty().then_some((body, options))
        });
        let Some((rest, mut options)) = parts else {
            return self
                .finish(reply, &Err(refuse(Errno::EINVAL, "the body has another size than its request")));
        };
        let Ok(name) = std::str::from_utf8(c_name(&header.nr_name)).map(str::to_owned) else {
            return self.finish(reply, &Err(refuse(Errno::EINVAL, "the name is not UTF-8")));
        };
        self.reap_hangups();
        let Some(mode) = NicMode::from_number(control.nic_mode) else {
            return self.finish(reply, &Err(refuse(Errno::EINVAL, "no such mode of interfaces")));
        };
        let request = self.nic_request(id, mode);
        self.registry.ask_from(request);
        if header.nr_reqtype == NETMAP_REQ_REGISTER {
            let granted = self.register(id, creds, &name, rest, &mut options);
            self.watch_interfaces();
            let answer = granted.as_ref().map(|(req, grant)| {
                let (bytes, fds) = grant_out(grant);
                let body = [controlled(&header, req.as_bytes(), &options), bytes].concat();
                Answer { body, fds }
            });
            return self.finish_control(reply, &header, &options, &answer.map_err(Clone::clone));
        }
        // Other requests serve no options yet, and say so in their statuses alone (abi.md 8).
        let answer = check_options(&mut options).and_then(|()| self.ask(creds, &name, &mut header, rest));
        let answer = answer.map(|body| Answer { body: controlled(&header, &body, &options), fds: vec![] });
        self.finish_control(reply, &header, &options, &answer);
    }

    /// As `finish`; who sent options gets their statuses also when the request failed.
    fn finish_control(
        &self,
        reply: Foreign,
        header: &nmreq_header,
        options: &[ReqOption],
        answer: &Result<Answer<'_>, ControlError>,
    ) {
        let Err(e) = answer else { return self.finish(reply, answer) };
        if options.is_empty() {
            return self.finish(reply, answer);
        }
        let body = [&controlled(header, &[], options), cut_text(&e.message).as_bytes()].concat();
        let sent = reply.socket().map(|r| r.send(&wire::message(Kind::Refused, e.errno.0, &body), &[]));
        if let Some(Err(e)) = sent {
            tracing::debug!("a client did not take its answer: {e}");
        }
    }

    /// From which network namespace session `id` asks: that of the client, whatever the broker's is.
    fn nic_request(&self, id: u64, mode: NicMode) -> NicRequest {
        let own = NicRequest { netns: None, netns_id: self.netns_id, mode };
        let Some(session) = self.sessions.get(&id) else { return own };
        // Not permitted without CAP_NET_ADMIN there; but then no interface can be opened either.
        let Ok(netns) = ringway_os::sys::socket_netns(&session.conn) else { return own };
        let file = std::fs::File::from(netns);
        match crate::server::netns_id(&file) {
            Ok(netns_id) if netns_id != self.netns_id => {
                NicRequest { netns: Some(std::sync::Arc::new(file.into())), netns_id, mode }
            }
            _ => own,
        }
    }

    /// Before a user gets one more port.
    fn check_limits(&self, uid: u32) -> Result<(), ControlError> {
        let limits = &self.config.limits;
        let mine = self.registry.count_ports(uid);
        if mine >= limits.ports {
            return Err(refuse(Errno::EMFILE, format!("this user has {mine} ports (limits.ports)")));
        }
        if self.registry.region_bytes(uid) >> 20 >= limits.memory_mib {
            let text = format!("this user's regions have {} MiB (limits.memory_mib)", limits.memory_mib);
            return Err(refuse(Errno::ENOMEM, text));
        }
        Ok(())
    }

    fn register(
        &mut self,
        id: u64,
        creds: Creds,
        name: &str,
        body: &[u8],
        options: &mut [ReqOption],
    ) -> Result<(nmreq_register, Grant), ControlError> {
        let mut req = nmreq_register::read_from_bytes(body).map_err(|_| refuse(Errno::EINVAL, "bad body"))?;
        let session = self.sessions.get(&id).ok_or_else(|| refuse(Errno::ENXIO, "no session"))?;
        if session.binding.is_some() {
            return Err(refuse(Errno::EBUSY, "the descriptor is bound already"));
        }
        self.check_limits(creds.uid)?;
        let binding = self.registry.register_with(Asker { uid: creds.uid }, name, &req, options)?;
        // Before anybody can sync: rings that this makes a matter of several users are the broker's now.
        self.worker.refresh(&self.registry);
        let grant = self.registry.grant(binding)?;
        if let Some(session) = self.sessions.get_mut(&id) {
            session.binding = Some(binding);
            session.pid = creds.pid;
            session.uid = creds.uid;
        }
        req.nr_offset = grant.if_ofs;
        req.nr_memsize = grant.layout.memsize;
        req.nr_tx_slots = grant.geometry.tx_slots;
        req.nr_rx_slots = grant.geometry.rx_slots;
        req.nr_tx_rings = grant.geometry.tx_rings;
        req.nr_rx_rings = grant.geometry.rx_rings;
        req.nr_host_tx_rings = 0;
        req.nr_host_rx_rings = 0;
        req.nr_mem_id = grant.mem_id;
        req.nr_extra_bufs = grant.extra_bufs;
        req.nr_flags = grant.nr_flags;
        tracing::debug!(port = name, pid = creds.pid, uid = creds.uid, "bound");
        Ok((req, grant))
    }

    /// Requests that bind nothing. Returns the body to write back.
    fn ask(
        &mut self,
        creds: Creds,
        name: &str,
        header: &mut nmreq_header,
        body: &[u8],
    ) -> Result<Vec<u8>, ControlError> {
        fn read<T: FromBytes>(body: &[u8]) -> Result<T, ControlError> {
            T::read_from_bytes(body).map_err(|_| refuse(Errno::EINVAL, "bad body"))
        }
        let who = Asker { uid: creds.uid };
        match header.nr_reqtype {
            NETMAP_REQ_PORT_INFO_GET => {
                let mut b: nmreq_port_info_get = read(body)?;
                self.registry.port_info_get(who, name, &mut b)?;
                b.nr_memsize += self.device_ofs(creds, b.nr_mem_id);
                Ok(b.as_bytes().to_vec())
            }
            NETMAP_REQ_POOLS_INFO_GET => {
                let mut b: nmreq_pools_info = read(body)?;
                self.registry.pools_info_get(who, name, &mut b)?;
                let ofs = self.device_ofs(creds, b.nr_mem_id);
                b.nr_memsize += ofs;
                b.nr_if_pool_offset += ofs;
                b.nr_ring_pool_offset += ofs;
                b.nr_buf_pool_offset += ofs;
                Ok(b.as_bytes().to_vec())
            }
            NETMAP_REQ_VALE_LIST => {
                let mut b: nmreq_vale_list = read(body)?;
                let found = self.registry.vale_list(name, &mut b)?;
                if let Some(field) = found.as_deref().and_then(c_name_field) {
                    header.nr_name = field;
                }
                Ok(b.as_bytes().to_vec())
            }
            NETMAP_REQ_VALE_NEWIF => {
                let mut b: nmreq_vale_newif = read(body)?;
                self.check_limits(who.uid)?;
                self.registry.vale_newif(who, name, &mut b)?;
                Ok(b.as_bytes().to_vec())
            }
            NETMAP_REQ_VALE_DELIF => self.registry.vale_delif(who, name).map(|()| vec![]),
            NETMAP_REQ_VALE_ATTACH => {
                let mut b: nmreq_vale_attach = read(body)?;
                self.check_limits(who.uid)?;
                let done = self.worker.change(&mut self.registry, |r| r.vale_attach(who, name, &mut b));
                self.watch_interfaces();
                done.map(|()| b.as_bytes().to_vec())
            }
            NETMAP_REQ_VALE_DETACH => {
                let mut b: nmreq_vale_detach = read(body)?;
                let done = self.worker.change(&mut self.registry, |r| r.vale_detach(who, name, &mut b));
                done.map(|()| b.as_bytes().to_vec())
            }
            NETMAP_REQ_VALE_POLLING_ENABLE => {
                let b: nmreq_vale_polling = read(body)?;
                self.start_polling(who, name, &b).map(|()| body.to_vec())
            }
            NETMAP_REQ_VALE_POLLING_DISABLE => self.stop_polling(who, name).map(|()| body.to_vec()),
            NETMAP_REQ_PORT_HDR_SET => {
                let b: nmreq_port_hdr = read(body)?;
                self.registry.port_hdr_set(who, name, b.nr_hdr_len)?;
                self.worker.refresh(&self.registry);
                Ok(b.as_bytes().to_vec())
            }
            NETMAP_REQ_PORT_HDR_GET => {
                let mut b: nmreq_port_hdr = read(body)?;
                b.nr_hdr_len = self.registry.port_hdr_get(who, name)?;
                Ok(b.as_bytes().to_vec())
            }
            other => Err(refuse(Errno::EINVAL, format!("request {other} is not served"))),
        }
    }

    /// How far from the start of what a program on the device file maps its region begins: all that the helper answers is counted from there.
    fn device_ofs(&self, creds: Creds, mem_id: u16) -> u64 {
        if self.device.is_helper(creds.pid) {
            self.registry.region_ofs(Asker { uid: creds.uid }, mem_id)
        } else {
            0
        }
    }

    fn tune(&mut self, who: Asker, body: &[u8]) -> Result<Vec<u8>, ControlError> {
        let ask = wire::take::<wire::Tune>(&mut &*body).map_err(|e| refuse(Errno::EPROTO, e.to_string()))?;
        let name = String::from_utf8_lossy(c_name(&ask.name)).into_owned();
        if ask.set == 1 {
            if !who.may(self.own_uid) {
                return Err(refuse(Errno::EPERM, "only the broker's own user and root may set tunables"));
            }
            if self.registry.tunables.get(&name).is_none() {
                return Err(refuse(Errno::ENOENT, format!("there is no tunable {name}")));
            }
            if !Tunables::is_live(&name) {
                return Err(refuse(
                    Errno::EPERM,
                    format!("{name} is read when the broker begins: set it in its file"),
                ));
            }
            self.registry.tunables.set(&name, ask.value);
            tracing::info!("tunable {name} = {}", ask.value);
        }
        let mut out = vec![];
        for known in Tunables::NAMES.iter().filter(|n| name.is_empty() || **n == name) {
            let field = c_name_field(known).unwrap_or([0; 32]);
            let value = self.registry.tunables.get(known).unwrap_or(0);
            let entry = wire::Tuned { name: field, value, live: Tunables::is_live(known).into() };
            out.extend_from_slice(entry.as_bytes());
        }
        if out.is_empty() {
            return Err(refuse(Errno::ENOENT, format!("there is no tunable {name}")));
        }
        Ok(out)
    }

    fn status(&self) -> Status {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: self.own_uid,
            socket: self.socket_path.display().to_string(),
            uptime_s: self.started.elapsed().as_secs(),
            sessions: self.sessions.len(),
            bindings: self.registry.bindings(),
            attachments: self.attachments.len(),
            closing: self.closers.waiting_of_all(),
            ports: self.registry.port_count(),
            locks_broken: self.locks_broken,
            device: self.device.to_string(),
            cpu_ns: ringway_os::sys::process_cpu_nanos(),
        }
    }
}
