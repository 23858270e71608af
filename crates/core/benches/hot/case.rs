//! What is measured: the cases and their names.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// One cache line there and back.
    Latency,
    /// Descriptors of 16 bytes, nothing else.
    Spsc,
    /// `copy_frame` from ring to ring.
    Copy,
    Vale,
    Pipe,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Where {
    /// A process on each of two processors.
    Two,
    /// Two processes on one processor.
    One,
    /// One thread.
    Thread,
}

/// One case. Its text form goes to the second process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub kind: Kind,
    pub place: Where,
    pub batch: u32,
    pub len: u32,
    /// Payload written by the sender and read by the receiver.
    pub touch: bool,
    /// MAC addresses that the sender writes into its frames in turn, destinations and sources each; 0: it leaves them alone.
    pub dsts: u32,
    pub srcs: u32,
    pub stride: u32,
}

impl Case {
    pub fn name(&self) -> String {
        let mut s = format!("{:?} {:?} {}B b{}", self.kind, self.place, self.len, self.batch).to_lowercase();
        if self.touch {
            s += " touch";
        }
        if self.dsts > 0 {
            s += &format!(" d{} s{}", self.dsts, self.srcs);
        }
        if self.stride != 2112 {
            s += &format!(" stride{}", self.stride);
        }
        s
    }

    pub fn to_arg(self) -> String {
        let Case { kind, place, batch, len, touch, dsts, srcs, stride } = self;
        format!("{},{},{batch},{len},{},{dsts},{srcs},{stride}", kind as u32, place as u32, u32::from(touch))
    }

    pub fn from_arg(s: &str) -> Self {
        let v: Vec<u32> = s.split(',').map(|x| x.parse().unwrap()).collect();
        Case {
            kind: [Kind::Latency, Kind::Spsc, Kind::Copy, Kind::Vale, Kind::Pipe][v[0] as usize],
            place: [Where::Two, Where::One, Where::Thread][v[1] as usize],
            batch: v[2],
            len: v[3],
            touch: v[4] != 0,
            dsts: v[5],
            srcs: v[6],
            stride: v[7],
        }
    }
}

pub fn cases() -> Vec<Case> {
    let base = Case {
        kind: Kind::Vale,
        place: Where::Two,
        batch: 256,
        len: 60,
        touch: false,
        dsts: 0,
        srcs: 0,
        stride: 2112,
    };
    let mut all = vec![];
    for batch in [1, 32, 256] {
        all.push(Case { kind: Kind::Spsc, batch, len: 16, ..base });
    }
    for len in [60, 1514] {
        all.push(Case { kind: Kind::Copy, place: Where::Thread, len, ..base });
    }
    for kind in [Kind::Vale, Kind::Pipe] {
        for place in [Where::Two, Where::One, Where::Thread] {
            for batch in [1, 8, 64, 256, 1024] {
                all.push(Case { kind, place, batch, ..base });
            }
            all.push(Case { kind, place, touch: true, ..base });
            all.push(Case { kind, place, len: 1514, ..base });
            all.push(Case { kind, place, len: 1514, touch: true, ..base });
            if kind == Kind::Vale {
                for (dsts, srcs) in [(1, 1), (999, 1), (500, 500)] {
                    all.push(Case { kind, place, dsts, srcs, ..base });
                }
            }
        }
    }
    for stride in [2048, 192] {
        all.push(Case { stride, ..base });
        all.push(Case { stride, place: Where::Thread, ..base });
        all.push(Case { stride, kind: Kind::Copy, place: Where::Thread, ..base });
    }
    all
}
