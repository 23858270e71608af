//! Sequences of requests to a registry, from several users.

use crate::input::Input;
use ringway_abi::wire;
use ringway_abi::{
    NR_ACCEPT_VNET_HDR, NR_EXCLUSIVE, NR_REG_ALL_NIC, NR_REG_NULL, NR_REG_ONE_NIC, NR_REG_SW,
    NR_RX_RINGS_ONLY, NR_TX_RINGS_ONLY, nmreq_opt_extmem, nmreq_pools_info, nmreq_port_info_get,
    nmreq_register, nmreq_vale_attach, nmreq_vale_detach, nmreq_vale_list, nmreq_vale_newif,
    nmreq_vale_polling,
};
use ringway_core::control::{
    Asker, BindingId, CsbArray, InterfaceUsers, Jobs, Offer, PagesKey, Registry, ReqOption, Tunables,
};
use ringway_core::handover::grant_out;
use ringway_core::lease::{Endpoint, GrantKind};
use ringway_os::mem::Memfd;
use zerocopy::{FromZeros, IntoBytes};

/// Users. None is root, who could open interfaces.
const USERS: [u32; 3] = [1000, 1001, 1002];
/// Names that meet each other; others are taken from the input.
const NAMES: [&str; 16] = [
    "vale0:a",
    "vale0:b",
    "vale0:c",
    "vale1:a",
    "valepub:a",
    "valepub:b",
    "x{1",
    "x}1",
    "x{2",
    "vale0:a{p",
    "vale0:a}p",
    "y{1{2",
    "x",
    "nosuch0",
    "vale:",
    "{",
];
/// Persistent ports, and their places on switches.
const LASTING: [&str; 8] =
    ["v0", "v1", "vale0:v0", "vale1:v0", "vale2:v0", "valepub:v1", "vale1:v1", "vale0:a"];
/// From here on a step is one about these.
const LASTING_STEPS: u8 = 0xf0;
/// Requests of one input, at most.
const MAX_STEPS: usize = 40;
/// Descriptors bound at a time, at most.
const MAX_BOUND: usize = 12;

/// A field: mostly small, else anything.
fn number(input: &mut Input<'_>) -> u32 {
    match input.u8() {
        0xff => input.u32(),
        0xfe => input.u16().into(),
        n => u32::from(n) % 40,
    }
}

fn name(input: &mut Input<'_>) -> String {
    let which = input.u8();
    if which < 0xf0 {
        return NAMES[usize::from(which) % NAMES.len()].to_owned();
    }
    let len = usize::from(which & 0xf) + 1;
    String::from_utf8_lossy(input.bytes(len)).into_owned()
}

fn register(input: &mut Input<'_>) -> nmreq_register {
    let flags = [
        0,
        NR_EXCLUSIVE,
        NR_TX_RINGS_ONLY,
        NR_RX_RINGS_ONLY,
        NR_ACCEPT_VNET_HDR,
        NR_TX_RINGS_ONLY | NR_RX_RINGS_ONLY,
        NR_EXCLUSIVE | NR_ACCEPT_VNET_HDR,
    ];
    let modes = [NR_REG_ALL_NIC, NR_REG_ALL_NIC, NR_REG_ONE_NIC, NR_REG_NULL, NR_REG_SW];
    let mut req =
        nmreq_register { nr_mode: *input.pick(&modes), nr_flags: *input.pick(&flags), ..Default::default() };
    if input.u8() < 0x80 {
        return req;
    }
    if input.u8() == 0xff {
        req.nr_mode = input.u32();
        req.nr_flags = input.u32().into();
    }
    req.nr_ringid = number(input) as u16;
    req.nr_tx_slots = number(input);
    req.nr_rx_slots = number(input);
    req.nr_tx_rings = number(input) as u16;
    req.nr_rx_rings = number(input) as u16;
    req.nr_mem_id = if input.u8() < 0x80 { 0 } else { number(input) as u16 };
    // All of them are written to when they are given.
    req.nr_extra_bufs = number(input) & 0x3ff;
    req
}

/// Bytes from which on a step is a REGISTER with memory and options.
const WITH_MEMORY: u8 = 252;
/// Bytes of that memory.
const MEMORY_BYTES: usize = 1 << 20;

fn options(input: &mut Input<'_>) -> Vec<ReqOption> {
    let nro_info = nmreq_pools_info {
        nr_memsize: if input.u8() < 0xc0 { MEMORY_BYTES as u64 } else { input.u32().into() },
        nr_if_pool_objtotal: number(input),
        nr_if_pool_objsize: number(input).wrapping_mul(8),
        nr_ring_pool_objtotal: number(input),
        nr_ring_pool_objsize: number(input).wrapping_mul(128),
        // The rings of these tests are small.
        nr_buf_pool_objtotal: number(input).max(1),
        nr_buf_pool_objsize: number(input).max(1).wrapping_mul(64),
        ..Default::default()
    };
    let mut out = vec![ReqOption::extmem(&nmreq_opt_extmem { nro_info, ..Default::default() })];
    if input.u8() < 0x40 {
        let mut array =
            || if input.u8() == 0 { CsbArray::Misaligned } else { CsbArray::Entries(number(input)) };
        out.push(ReqOption::csb(array(), array()));
    }
    out
}

fn offer(input: &mut Input<'_>) -> Offer {
    let memfd = Memfd::create("fuzz", MEMORY_BYTES).expect("memory");
    // Few, so that they meet.
    let pages = |n: u8| PagesKey { file: (1, u64::from(n % 3)), offset: 0, len: MEMORY_BYTES as u64 };
    let n = input.u8();
    Offer { memfd, pages: (n < 0xc0).then(|| pages(n)) }
}

struct State {
    registry: Registry,
    jobs: Jobs,
    bound: Vec<(BindingId, Asker)>,
}

impl State {
    fn step(&mut self, input: &mut Input<'_>) {
        let who = Asker { uid: *input.pick(&USERS) };
        let raw = input.u8();
        if (LASTING_STEPS..WITH_MEMORY).contains(&raw) {
            return self.lasting_step(who, raw - LASTING_STEPS, input);
        }
        match raw % 12 {
            _ if raw >= WITH_MEMORY => {
                let (name, req) = (name(input), register(input));
                let mut options = options(input);
                self.registry.offer(Some(offer(input)));
                if self.bound.len() < MAX_BOUND
                    && let Ok(id) = self.registry.register_with(who, &name, &req, &mut options)
                {
                    self.bound.push((id, who));
                }
                self.registry.offer(None);
            }
            0..=3 => {
                let (name, req) = (name(input), register(input));
                if self.bound.len() < MAX_BOUND
                    && let Ok(id) = self.registry.register(who, &name, &req)
                {
                    self.bound.push((id, who));
                }
            }
            4 | 5 => {
                if !self.bound.is_empty() {
                    let i = usize::from(input.u8()) % self.bound.len();
                    self.registry.unbind(self.bound.swap_remove(i).0);
                }
            }
            6 => {
                let req = register(input);
                let mut body = nmreq_port_info_get {
                    nr_tx_slots: req.nr_tx_slots,
                    nr_rx_slots: req.nr_rx_slots,
                    nr_tx_rings: req.nr_tx_rings,
                    nr_rx_rings: req.nr_rx_rings,
                    nr_mem_id: req.nr_mem_id,
                    ..Default::default()
                };
                let _ = self.registry.port_info_get(who, &name(input), &mut body);
            }
            7 => {
                let mut body = nmreq_pools_info::new_zeroed();
                let _ = self.registry.pools_info_get(who, &name(input), &mut body);
            }
            8 => {
                let mut body = nmreq_vale_list {
                    nr_bridge_idx: number(input) as u16,
                    nr_port_idx: number(input),
                    ..Default::default()
                };
                let name = if input.u8() < 0x80 { String::new() } else { name(input) };
                let _ = self.registry.vale_list(&name, &mut body);
            }
            9 => {
                let name = name(input);
                let len = *input.pick(&[0, 10, 12, 11, u32::MAX]);
                let before = self.registry.port_hdr_get(who, &name).ok();
                match self.registry.port_hdr_set(who, &name, len) {
                    Ok(()) => assert_eq!(self.registry.port_hdr_get(who, &name).ok(), Some(len)),
                    Err(_) => assert_eq!(self.registry.port_hdr_get(who, &name).ok(), before),
                }
            }
            10 => {
                let Some((id, _)) = self.bound.first() else { return };
                let _ = self.registry.peer_grant(*id, input.u8());
            }
            _ => self.registry.refresh_jobs(&mut self.jobs),
        }
        drop(self.registry.take_retired());
    }

    /// A request about persistent ports, made while nothing runs.
    fn lasting_step(&mut self, who: Asker, what: u8, input: &mut Input<'_>) {
        let name = *input.pick(&LASTING);
        self.registry.settle_jobs(&mut self.jobs);
        let r = &mut self.registry;
        match what % 6 {
            0 => drop(r.vale_newif(who, name, &mut nmreq_vale_newif::default())),
            1 => drop(r.vale_delif(who, name)),
            2 => {
                let mode = *input.pick(&[NR_REG_ALL_NIC, NR_REG_ALL_NIC, NR_REG_SW]);
                let reg = nmreq_register { nr_mode: mode, ..Default::default() };
                let mut body = nmreq_vale_attach { reg, port_index: u32::MAX, ..Default::default() };
                let done = r.vale_attach(who, name, &mut body);
                assert_eq!(done.is_ok(), body.port_index != u32::MAX, "{name}");
            }
            3 => drop(r.vale_detach(who, name, &mut nmreq_vale_detach::default())),
            4 => {
                let body = nmreq_vale_polling {
                    nr_mode: number(input),
                    nr_first_cpu_id: number(input),
                    nr_num_polling_cpus: number(input),
                    ..Default::default()
                };
                let _ = r.vale_polling_enable(who, name, &body, 4);
            }
            _ => drop(r.vale_polling_disable(who, name)),
        }
        self.registry.refresh_jobs(&mut self.jobs);
        for _ in 0..4 {
            self.jobs.run();
        }
    }

    /// Takes what outlives descriptors away, the last attached first.
    fn clear(&mut self) {
        let root = Asker { uid: 0 };
        self.registry.settle_jobs(&mut self.jobs);
        let names = |registry: &Registry, kind: &str| -> Vec<String> {
            registry.list(root).into_iter().filter(|p| p.kind == kind).map(|p| p.name).collect()
        };
        for kind in ["attached", "persistent", "parent"] {
            for name in names(&self.registry, kind) {
                let _ = self.registry.vale_polling_disable(root, &name);
                let _ = self.registry.vale_detach(root, &name, &mut nmreq_vale_detach::default());
            }
        }
        for name in names(&self.registry, "persistent") {
            self.registry.vale_delif(root, &name).expect("nobody uses it");
        }
    }

    /// What must be so after each request.
    fn check(&self) {
        let ports = self.registry.list(Asker { uid: 0 });
        // Whatever stands for a port on a switch has bound both.
        let own = 2 * ports.iter().filter(|p| p.kind == "attached").count();
        assert_eq!(self.registry.bindings(), self.bound.len() + own);
        assert_eq!(ports.len(), self.registry.port_count());
        let holders: usize = ports.iter().map(|p| p.holders.len()).sum();
        assert_eq!(holders, self.bound.len() + own);
        assert_eq!(self.jobs.pumps.len() % 2, 0);
        for user in USERS {
            let own = ports.iter().filter(|p| p.owner == user).count();
            assert_eq!(self.registry.count_ports(user), own);
            for p in self.registry.list(Asker { uid: user }).iter().filter(|p| p.owner != user) {
                assert!(!p.visible && p.rings.is_empty() && p.holders.is_empty() && p.mem_id == 0, "{p:?}");
            }
        }
        for (id, who) in &self.bound {
            let grant = self.registry.grant(*id).expect("it is bound");
            let port =
                ports.iter().find(|p| p.holders.iter().any(|h| h.binding == *id)).expect("it is listed");
            assert!(grant.name == port.name && grant.mem_id == port.mem_id, "{port:?}");
            let public = matches!(grant.kind, GrantKind::Vale { .. }) && port.name.starts_with("valepub:");
            assert!(public || port.owner == who.uid, "{who:?} has {port:?}");
            let (bytes, _) = grant_out(&grant);
            assert!(bytes.len() >= size_of::<wire::Grant>());
            if grant.tx.offsets.len() + grant.rx.offsets.len() <= wire::MAX_GRANT_RINGS {
                assert!(bytes.as_bytes().len() <= wire::MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
            }
            // Every ring lies where it is said to.
            Endpoint::new(grant, 100).expect("the memory holds the rings");
        }
    }
}

/// Requests decoded from the bytes, by several users. After each the registry must agree with itself, and at the end nothing is left.
///
/// # Panics
/// If it does not.
pub fn request(data: &[u8]) {
    let input = &mut Input::new(data);
    let mut registry = Registry::new(Tunables { buf_num: 2048, ..Tunables::default() });
    registry.interface_users = InterfaceUsers::Some([].into());
    registry.public_switches = vec!["valepub".to_owned()];
    let mut state = State { registry, jobs: Jobs::default(), bound: vec![] };
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        state.step(input);
        state.check();
    }
    for (id, _) in std::mem::take(&mut state.bound) {
        state.registry.unbind(id);
    }
    state.clear();
    state.registry.refresh_jobs(&mut state.jobs);
    assert!(state.registry.is_empty(), "left: {:?}", state.registry);
    assert!(state.jobs.is_empty());
}
