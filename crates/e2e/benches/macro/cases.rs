//! The table of cases, and how they are named.

/// What packets go through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// A null port: the cost of a sync that moves nothing.
    Null,
    /// Both ends of a pipe.
    Pipe,
    /// Two ports of a switch, processes of one user.
    Vale,
    /// The same, processes of two users: the broker's worker copies. The sender waits for it.
    Brokered,
    /// The same; the sender posts.
    BrokeredPost,
    /// Switch, both ports and the program in one thread, no broker.
    Embedded,
}

/// Where processes run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// Sender and receiver each pinned to a processor of its own.
    Two,
    /// Both pinned to one processor.
    One,
    /// Where the kernel puts them.
    Free,
    /// One process, one thread.
    Thread,
}

/// What a program does when it cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waiting {
    /// `Port::wait`, a sender `Port::wait_for`: what programs are meant to do.
    Port,
    /// Syncs again and again.
    Spin,
    /// Syncs again and again, and yields in between.
    Yield,
    /// Sleeps at once: `Port::arm`, then poll.
    Sleep,
}

/// Ports of the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ports {
    /// The two that exchange packets.
    Two,
    /// So many more are open, and silent.
    Idle(u32),
    /// So many pairs, each with the same traffic.
    Pairs(u32),
}

/// One case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub link: Link,
    pub place: Place,
    /// Bytes of a frame.
    pub len: u16,
    /// Packets that the sender hands over at a time, at most; the receiver takes what is there.
    pub batch: u32,
    /// Slots of each ring; 0: as many as a port has by default.
    pub slots: u32,
    /// The sender writes every payload and the receiver reads it; else neither does.
    pub touch: bool,
    pub ports: Ports,
    /// Destination and source addresses that the sender writes into its frames in turn; (0, 0): it leaves them alone.
    pub macs: (u32, u32),
    pub waiting: Waiting,
    /// Processes that do nothing but use processors.
    pub busy: u32,
    /// One more word of the name.
    pub tag: &'static str,
}

/// Every case. The sections for single frames, veth and opening have lists of their own.
pub fn cases() -> Vec<Case> {
    let base = Case {
        link: Link::Vale,
        place: Place::Two,
        len: 60,
        batch: 256,
        slots: 0,
        touch: false,
        ports: Ports::Two,
        macs: (0, 0),
        waiting: Waiting::Port,
        busy: 0,
        tag: "",
    };
    let mut all = vec![Case { link: Link::Null, place: Place::Thread, len: 0, batch: 0, ..base }];

    // Sizes and batches.
    for (link, place) in [
        (Link::Pipe, Place::Two),
        (Link::Pipe, Place::One),
        (Link::Vale, Place::Two),
        (Link::Vale, Place::One),
        (Link::BrokeredPost, Place::Two),
        (Link::Brokered, Place::Two),
        (Link::Embedded, Place::Thread),
    ] {
        for len in [60, 1514] {
            for batch in [1, 8, 64, 256, 1024] {
                all.push(Case { link, place, len, batch, ..base });
            }
            all.push(Case { link, place, len, touch: true, ..base });
        }
    }

    // Larger rings: fewer changes between processes that share a processor.
    for link in [Link::Pipe, Link::Vale] {
        for place in [Place::Two, Place::One] {
            for batch in [256, 1024] {
                all.push(Case { link, place, batch, slots: 4096, ..base });
            }
        }
    }

    // Ports and addresses; the first row of each group is what the others are compared with.
    for ports in [Ports::Two, Ports::Idle(198), Ports::Pairs(100)] {
        all.push(Case { ports, tag: "ports", ..base });
    }
    for (link, place) in [(Link::Vale, Place::Two), (Link::Vale, Place::One), (Link::Embedded, Place::Thread)]
    {
        for macs in [(1, 1), (999, 1), (500, 500)] {
            all.push(Case { link, place, macs, tag: "macs", ..base });
        }
    }

    // Ways of waiting, with the machine to themselves and not.
    for link in [Link::Vale, Link::Pipe] {
        for place in [Place::Two, Place::Free] {
            for waiting in [Waiting::Port, Waiting::Spin, Waiting::Yield, Waiting::Sleep] {
                for busy in [0, 2, 4] {
                    all.push(Case { link, place, waiting, busy, tag: "waiting", ..base });
                }
            }
        }
    }
    all
}

impl Case {
    /// Words that say what it is; filters compare them.
    pub fn name(&self) -> String {
        let link = match self.link {
            Link::Brokered => "brokered sync".into(),
            Link::BrokeredPost => "brokered post".into(),
            other => format!("{other:?}").to_lowercase(),
        };
        let mut s = format!("{link} {}", format!("{:?}", self.place).to_lowercase());
        if self.batch > 0 {
            s += &format!(" {}b b{}", self.len, self.batch);
        }
        if self.slots > 0 {
            s += &format!(" s{}", self.slots);
        }
        if self.touch {
            s += " touch";
        }
        match self.ports {
            Ports::Two if self.tag == "ports" => s += " 2",
            Ports::Two => {}
            Ports::Idle(n) => s += &format!(" {} idle", n + 2),
            Ports::Pairs(n) => s += &format!(" {} active", 2 * n),
        }
        if self.macs != (0, 0) {
            s += &format!(" {}to{}", self.macs.1, self.macs.0);
        }
        if self.tag == "waiting" {
            s += &format!(" {} busy{}", format!("{:?}", self.waiting).to_lowercase(), self.busy);
        }
        if !self.tag.is_empty() {
            s += &format!(" {}", self.tag);
        }
        s
    }

    /// Ports of the sender and of the receiver.
    pub fn port_names(&self) -> (Vec<String>, Vec<String>) {
        match (self.link, self.ports) {
            (Link::Pipe, _) => (vec!["netmap:x{1".into()], vec!["netmap:x}1".into()]),
            (Link::Brokered | Link::BrokeredPost, _) => {
                (vec![format!("{PUBLIC_SWITCH}:a")], vec![format!("{PUBLIC_SWITCH}:b")])
            }
            (_, Ports::Pairs(n)) => (0..n).map(|i| (format!("vale0:a{i}"), format!("vale0:b{i}"))).unzip(),
            _ => (vec!["vale0:a".into()], vec!["vale0:b".into()]),
        }
    }

    /// True for those that need root, to start a process of another user.
    pub fn is_brokered(&self) -> bool {
        matches!(self.link, Link::Brokered | Link::BrokeredPost)
    }
}

/// A switch that processes of several users may join.
pub const PUBLIC_SWITCH: &str = "vale9";

/// True if `name` has every word of the filter; a word may be several, with commas between: one of them is enough.
pub fn matches(filter: &[String], name: &str) -> bool {
    let has = |word: &str| name.split(' ').any(|w| w == word);
    filter.iter().all(|f| f.split(',').any(has))
}
