//! Parameters: netmap's names, with Ringway's defaults.
//!
//! Source: tunables.md; `sys/dev/netmap/netmap.c`, `netmap_mem2.c`.

use crate::layout::{PoolWish, RegionWish};

macro_rules! tunables {
    ($($(#[$doc:meta])* $name:ident = $default:expr, $live:expr;)*) => {
        /// The parameters in force. All are signed 32-bit integers, as netmap's are.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Tunables { $($(#[$doc])* pub $name: i32,)* }

        impl Default for Tunables {
            fn default() -> Self {
                Tunables { $($name: $default,)* }
            }
        }

        impl Tunables {
            /// Names, in order.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// The value of `name`, if there is such a parameter.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<i32> {
                match name { $(stringify!($name) => Some(self.$name),)* _ => None }
            }

            /// Sets `name`; false if there is no such parameter.
            pub fn set(&mut self, name: &str, value: i32) -> bool {
                match name { $(stringify!($name) => self.$name = value,)* _ => return false }
                true
            }

            /// True if `name` may be set while the broker runs.
            #[must_use]
            pub fn is_live(name: &str) -> bool {
                match name { $(stringify!($name) => $live,)* _ => false }
            }
        }
    };
}

tunables! {
    /// Adapter of interfaces: 0 the best that works, 1 native only, 2 emulated only.
    admode = 0, true;
    /// Slots per ring of interfaces that do not tell.
    generic_ringsize = 1024, true;
    /// Switches.
    max_bridges = 8, false;
    /// Bytes of an interface record in the global region.
    if_size = 1024, true;
    /// Interface records in the global region.
    if_num = 100, true;
    /// Bytes of a ring object in the global region.
    ring_size = 36864, true;
    /// Ring objects in the global region.
    ring_num = 200, true;
    /// Bytes of a buffer in the global region.
    buf_size = 2048, true;
    /// Buffers in the global region. Less than netmap's 163840, since a NIC pins all of them; raise it for many rings.
    buf_num = 16384, true;
    /// Bytes of an interface record in private regions.
    priv_if_size = 1024, true;
    /// Interface records in private regions, at least.
    priv_if_num = 2, true;
    /// Bytes of a ring object in private regions, at least.
    priv_ring_size = 20480, true;
    /// Ring objects in private regions, at least.
    priv_ring_num = 4, true;
    /// Bytes of a buffer in private regions. 2112, since 2048 uses one cache set in 32.
    priv_buf_size = 2112, true;
    /// Buffers in private regions, at least.
    priv_buf_num = 4098, true;
}

fn positive(v: i32) -> u32 {
    u32::try_from(v).unwrap_or(0)
}

impl Tunables {
    /// What is asked of a private region, at least.
    #[must_use]
    pub(crate) fn private_region(&self) -> RegionWish {
        let wish = |size, num| PoolWish { objsize: positive(size), objtotal: positive(num) };
        RegionWish {
            ifs: wish(self.priv_if_size, self.priv_if_num),
            rings: wish(self.priv_ring_size, self.priv_ring_num),
            bufs: wish(self.priv_buf_size, self.priv_buf_num),
        }
    }

    /// What is asked of a global region.
    #[must_use]
    pub(crate) fn global_region(&self) -> RegionWish {
        let wish = |size, num| PoolWish { objsize: positive(size), objtotal: positive(num) };
        RegionWish {
            ifs: wish(self.if_size, self.if_num),
            rings: wish(self.ring_size, self.ring_num),
            bufs: wish(self.buf_size, self.buf_num),
        }
    }
}
