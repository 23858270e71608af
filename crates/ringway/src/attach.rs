//! This process as its brokers know it: one attachment per broker, under whose number locks are held.
//!
//! It outlives the ports that it was made for, so it must stand what programs do between two opens: fork (the child finds the number
//! wiped, and attaches anew), and close every fd of the process (the channel is gone, and its number may be another file by now).

use ringway_os::sock::Conn;
use ringway_os::sys::{ForkWord, file_id, hung_up};
use std::mem::forget;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What tells one broker from another: its process, and the path at which it listens. And for whom we ask it, if not for ourselves:
/// each user has an attachment of his own.
pub(crate) type BrokerId = (u32, PathBuf, Option<u32>);

/// A process and a broker: the number for locks.
#[derive(Debug)]
pub(crate) struct Attachment {
    broker: BrokerId,
    number: ForkWord,
    channel: Mutex<Channel>,
}

/// The attachments of this process. Taken before a channel; a request to the broker may be made meanwhile.
static ATTACHMENTS: Mutex<Vec<Arc<Attachment>>> = Mutex::new(Vec::new());

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of the channel that is ours, as long as nobody has closed its number.
#[derive(Debug)]
struct Channel {
    conn: Option<Conn>,
    id: Option<(u64, u64)>,
}

impl Channel {
    fn new(conn: Conn) -> Self {
        let id = file_id(conn.as_fd());
        Channel { conn: Some(conn), id }
    }

    fn is_alive(&self) -> bool {
        self.conn.as_ref().is_some_and(|c| file_id(c.as_fd()) == self.id && !hung_up(&[c.as_fd()])[0])
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take()
            && file_id(conn.as_fd()) != self.id
        {
            // Somebody closed the number; whatever has it now is not ours to close.
            forget(conn);
        }
    }
}

impl Attachment {
    /// The one for `broker`; `attach` asks it for a number and a channel if need be.
    pub fn of<E>(
        broker: &BrokerId,
        attach: impl FnOnce() -> Result<(u32, Conn), E>,
        no_memory: impl FnOnce(&std::io::Error) -> E,
    ) -> Result<Arc<Self>, E> {
        let mut all = lock(&ATTACHMENTS);
        all.retain(|a| lock(&a.channel).is_alive());
        if let Some(found) = all.iter().find(|a| a.broker == *broker) {
            found.renew(attach)?;
            return Ok(found.clone());
        }
        let number = ForkWord::new().map_err(|e| no_memory(&e))?;
        let channel = Mutex::new(Channel { conn: None, id: None });
        let fresh = Arc::new(Attachment { broker: broker.clone(), number, channel });
        fresh.renew(attach)?;
        all.push(fresh.clone());
        Ok(fresh)
    }

    /// Attaches if the number is wiped: new, or a forked child's.
    #[cold]
    pub fn renew<E>(&self, attach: impl FnOnce() -> Result<(u32, Conn), E>) -> Result<u32, E> {
        let mut channel = lock(&self.channel);
        if self.number.get() == 0 {
            let (number, fresh) = attach()?;
            *channel = Channel::new(fresh);
            self.number.set(number);
        }
        Ok(self.number.get())
    }

    /// The number; 0 in a forked child that has not attached yet.
    #[inline]
    pub fn number(&self) -> u32 {
        self.number.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_whose_number_became_another_file_is_neither_trusted_nor_closed() {
        let (mine, theirs) = Conn::pair().unwrap();
        let mut channel = Channel::new(mine);
        assert!(channel.is_alive());
        // As if the number had been closed, and given to the file that it now is.
        channel.id = file_id(theirs.as_fd());
        assert!(!channel.is_alive());
        drop(channel);
        theirs.send(b"still there", &[]).expect("the file was not closed");
    }

    #[test]
    fn a_broker_is_asked_once_and_again_after_its_channel_is_gone() {
        let broker = (1, PathBuf::from("/nonexistent/attach-test"), None);
        let (mine, theirs) = Conn::pair().unwrap();
        let none = |e: &std::io::Error| e.to_string();
        let first = Attachment::of(&broker, || Ok((7, mine)), none).unwrap();
        let again = Attachment::of(&broker, || Err("asked twice".to_owned()), none).unwrap();
        assert!(Arc::ptr_eq(&first, &again) && again.number() == 7);
        drop(theirs);
        let (mine, _theirs) = Conn::pair().unwrap();
        let anew = Attachment::of(&broker, || Ok((8, mine)), none).unwrap();
        assert_eq!((first.number(), anew.number()), (7, 8));
    }
}
