//! Registers by which a virtual machine's device model offers a netmap port to its guest (ptnetmap).
//!
//! Only constants: nothing in this workspace is such a device model, but the C headers of one
//! need the numbers. Register values are byte offsets into the I/O bar.
//!
//! Source: `sys/net/netmap_virt.h`.

/// PCI vendor of both devices.
pub const PTNETMAP_PCI_VENDOR_ID: u16 = 0x1b36;
/// PCI device of the memory device.
pub const PTNETMAP_PCI_DEVICE_ID: u16 = 0x000c;
/// PCI device of the NIC.
pub const PTNETMAP_PCI_NETIF_ID: u16 = 0x000d;
/// Name of the memory device.
pub const PTNETMAP_MEMDEV_NAME: &str = "ptnetmap-memdev";
/// BAR of the registers.
pub const PTNETMAP_IO_PCI_BAR: u32 = 0;
/// BAR of the region.
pub const PTNETMAP_MEM_PCI_BAR: u32 = 1;
/// BAR of the interrupt table.
pub const PTNETMAP_MSIX_PCI_BAR: u32 = 2;

macro_rules! registers {
    ($device:literal: $($name:ident $offset:literal)*) => {
        $(#[doc = concat!("Register of the ", $device, ", byte offset.")]
        pub const $name: u32 = $offset;)*
    };
}

registers! { "memory device":
    PTNET_MDEV_IO_MEMSIZE_LO 0
    PTNET_MDEV_IO_MEMSIZE_HI 4
    PTNET_MDEV_IO_MEMID 8
    PTNET_MDEV_IO_IF_POOL_OFS 64
    PTNET_MDEV_IO_IF_POOL_OBJNUM 68
    PTNET_MDEV_IO_IF_POOL_OBJSZ 72
    PTNET_MDEV_IO_RING_POOL_OFS 76
    PTNET_MDEV_IO_RING_POOL_OBJNUM 80
    PTNET_MDEV_IO_RING_POOL_OBJSZ 84
    PTNET_MDEV_IO_BUF_POOL_OFS 88
    PTNET_MDEV_IO_BUF_POOL_OBJNUM 92
    PTNET_MDEV_IO_BUF_POOL_OBJSZ 96
    PTNET_MDEV_IO_END 100
}

registers! { "NIC":
    PTNET_IO_PTFEAT 0
    PTNET_IO_PTCTL 4
    PTNET_IO_MAC_LO 8
    PTNET_IO_MAC_HI 12
    PTNET_IO_CSBBAH 16
    PTNET_IO_CSBBAL 20
    PTNET_IO_NIFP_OFS 24
    PTNET_IO_NUM_TX_RINGS 28
    PTNET_IO_NUM_RX_RINGS 32
    PTNET_IO_NUM_TX_SLOTS 36
    PTNET_IO_NUM_RX_SLOTS 40
    PTNET_IO_VNET_HDR_LEN 44
    PTNET_IO_HOSTMEMID 48
    PTNET_IO_CSB_GH_BAH 52
    PTNET_IO_CSB_GH_BAL 56
    PTNET_IO_CSB_HG_BAH 60
    PTNET_IO_CSB_HG_BAL 64
    PTNET_IO_END 68
    PTNET_IO_KICK_BASE 128
    PTNET_IO_MASK 0xff
}

/// Feature bit: the guest copes with a virtio-net header.
pub const PTNETMAP_F_VNET_HDR: u32 = 1;
/// Command: start the sync loop.
pub const PTNETMAP_PTCTL_CREATE: u32 = 1;
/// Command: stop the sync loop.
pub const PTNETMAP_PTCTL_DELETE: u32 = 2;
