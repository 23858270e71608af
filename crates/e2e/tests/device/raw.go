// A Go program, whose runtime makes its system calls itself. Two ends of a pipe, one to a goroutine, which meet on the network poller's
// way: epoll. Usage: raw-go DEVICE. Prints ok, or what failed.
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

const (
	nioctxsync = 'i'<<8 | 148
	niocrxsync = 'i'<<8 | 149
	niocctrl   = 3<<30 | unsafe.Sizeof(header{})<<16 | 'i'<<8 | 151
	frames     = 2000
	frameBytes = 60
)

// struct nmreq_header
type header struct {
	version, reqtype uint16
	reserved         uint32
	name             [64]byte
	options, body    uint64
}

// struct nmreq_register
type register struct {
	offset, memsize                            uint64
	txSlots, rxSlots                           uint32
	txRings, rxRings, hostTxRings, hostRxRings uint16
	memID, ringID                              uint16
	mode, extraBufs                            uint32
	flags                                      uint64
}

// struct netmap_ring, as far as it is used here.
type ring struct {
	bufOfs            int64
	numSlots, bufSize uint32
	ringID, dir       uint16
	head, cur, tail   uint32
	flags             uint32
}

// struct netmap_slot
type slot struct {
	bufIdx     uint32
	len, flags uint16
	ptr        uint64
}

type end struct {
	fd  int
	mem []byte
	reg *register
}

func check(what string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", what, err)
		os.Exit(1)
	}
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

func openEnd(device, name string) end {
	fd, err := syscall.Open(device, syscall.O_RDWR, 0)
	check("open", err)
	// On the heap: their addresses are the kernel's business for a while.
	hdr, reg := new(header), new(register)
	hdr.version, hdr.reqtype = 14, 1
	copy(hdr.name[:], name)
	hdr.body = uint64(uintptr(unsafe.Pointer(reg)))
	reg.mode = 1
	check("REGISTER "+name, ioctl(fd, niocctrl, unsafe.Pointer(hdr)))
	runtime.KeepAlive(reg)
	mem, err := syscall.Mmap(fd, 0, int(reg.memsize), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	check("mmap", err)
	return end{fd, mem, reg}
}

func (e end) at(ofs uint64) unsafe.Pointer {
	return unsafe.Pointer(&e.mem[ofs])
}

// The offset of a ring: the interface record has a list of them, TX rings and then host TX rings first.
func (e end) ringAt(rx bool) uint64 {
	record := e.reg.offset
	n := 0
	if rx {
		n = int(*(*uint32)(e.at(record + 24))) + int(*(*uint32)(e.at(record + 36)))
	}
	return record + uint64(*(*int64)(e.at(record + 56 + uint64(n)*8)))
}

func (e end) slotOf(ofs uint64, i uint32) *slot {
	return (*slot)(e.at(ofs + 256 + uint64(i)*16))
}

func (e end) bufOf(ofs uint64, r *ring, s *slot) []byte {
	from := uint64(int64(ofs)+r.bufOfs) + uint64(s.bufIdx)*uint64(r.bufSize)
	return e.mem[from : from+frameBytes]
}

func send(e end) {
	ofs := e.ringAt(false)
	r := (*ring)(e.at(ofs))
	for sent := 0; sent < frames; {
		for r.head != r.tail && sent < frames {
			s := e.slotOf(ofs, r.head)
			s.len = frameBytes
			buf := e.bufOf(ofs, r, s)
			buf[0], buf[1] = byte(sent), byte(sent>>8)
			r.head = (r.head + 1) % r.numSlots
			r.cur = r.head
			sent++
		}
		check("NIOCTXSYNC", ioctl(e.fd, nioctxsync, nil))
		runtime.Gosched()
	}
}

func receive(e end) {
	epoll, err := syscall.EpollCreate1(0)
	check("epoll_create", err)
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(e.fd)}
	check("epoll_ctl", syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, e.fd, &event))
	ofs := e.ringAt(true)
	r := (*ring)(e.at(ofs))
	for got := 0; got < frames; {
		n, err := syscall.EpollWait(epoll, make([]syscall.EpollEvent, 1), 20000)
		if err == syscall.EINTR {
			continue
		}
		check("epoll_wait", err)
		if n != 1 {
			fmt.Printf("nothing came after %d\n", got)
			os.Exit(1)
		}
		for ; r.head != r.tail; got++ {
			s := e.slotOf(ofs, r.head)
			if buf := e.bufOf(ofs, r, s); s.len != frameBytes || buf[0] != byte(got) || buf[1] != byte(got>>8) {
				fmt.Printf("frame %d: length %d, %v\n", got, s.len, buf[:2])
				os.Exit(1)
			}
			r.head = (r.head + 1) % r.numSlots
			r.cur = r.head
		}
		check("NIOCRXSYNC", ioctl(e.fd, niocrxsync, nil))
	}
}

func main() {
	a, b := openEnd(os.Args[1], "go{1"), openEnd(os.Args[1], "go}1")
	done := make(chan bool)
	go func() { receive(b); done <- true }()
	go func() { send(a); done <- true }()
	<-done
	<-done
	check("close", syscall.Close(a.fd))
	check("close", syscall.Close(b.fd))
	fmt.Println("ok")
}
