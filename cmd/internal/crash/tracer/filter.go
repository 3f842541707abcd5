package tracer

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// about says which argument of a call tells what it is about.
type about struct {
	name string
	fd   int // index of the argument that is a file descriptor, or -1
	path int // index of the argument that is a path, or -1
	size int // index of the argument that is a number of bytes, or -1
}

// traced are the calls that stop. connect is none to be killed at: it tells what a socket is.
var traced = map[uint64]about{
	unix.SYS_WRITE:           {"write", 0, -1, 2},
	unix.SYS_WRITEV:          {"writev", 0, -1, -1},
	unix.SYS_PWRITE64:        {"pwrite64", 0, -1, 2},
	unix.SYS_PWRITEV:         {"pwritev", 0, -1, -1},
	unix.SYS_SENDTO:          {"sendto", 0, -1, 2},
	unix.SYS_SENDMSG:         {"sendmsg", 0, -1, -1},
	unix.SYS_SENDFILE:        {"sendfile", 0, -1, 3},
	unix.SYS_FSYNC:           {"fsync", 0, -1, -1},
	unix.SYS_FDATASYNC:       {"fdatasync", 0, -1, -1},
	unix.SYS_FTRUNCATE:       {"ftruncate", 0, -1, -1},
	unix.SYS_FALLOCATE:       {"fallocate", 0, -1, -1},
	unix.SYS_FCHMOD:          {"fchmod", 0, -1, -1},
	unix.SYS_TRUNCATE:        {"truncate", -1, 0, -1},
	unix.SYS_OPENAT:          {"openat", -1, 1, -1}, // only with O_CREAT or O_TRUNC
	unix.SYS_RENAME:          {"rename", -1, 1, -1},
	unix.SYS_RENAMEAT:        {"renameat", -1, 3, -1},
	unix.SYS_RENAMEAT2:       {"renameat2", -1, 3, -1},
	unix.SYS_LINK:            {"link", -1, 1, -1},
	unix.SYS_LINKAT:          {"linkat", -1, 3, -1},
	unix.SYS_SYMLINKAT:       {"symlinkat", -1, 2, -1},
	unix.SYS_UNLINK:          {"unlink", -1, 0, -1},
	unix.SYS_UNLINKAT:        {"unlinkat", -1, 1, -1},
	unix.SYS_RMDIR:           {"rmdir", -1, 0, -1},
	unix.SYS_MKDIR:           {"mkdir", -1, 0, -1},
	unix.SYS_MKDIRAT:         {"mkdirat", -1, 1, -1},
	unix.SYS_COPY_FILE_RANGE: {"copy_file_range", 2, -1, 4},
	unix.SYS_CONNECT:         {"connect", 0, -1, -1},
}

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	dataNumber = 0
	dataArch   = 4
	dataArgs   = 16
)

// filter stops the traced calls for the tracer and lets all others pass.
func filter() []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// isNot skips the next n instructions unless the loaded word is k.
	isNot := func(k uint32, n uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: n}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	allow, trace := ret(unix.SECCOMP_RET_ALLOW), ret(unix.SECCOMP_RET_TRACE)

	program := []unix.SockFilter{load(dataArch), isNot(unix.AUDIT_ARCH_X86_64, 1), load(dataNumber)}
	// With another architecture the word is that one, which is the number of no call.
	for number := range traced {
		if number == unix.SYS_OPENAT {
			continue
		}
		program = append(program, isNot(uint32(number), 1), trace)
	}
	return append(program,
		isNot(unix.SYS_OPENAT, 3),
		load(dataArgs+2*8),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.O_CREAT | unix.O_TRUNC, Jf: 1},
		trace,
		allow)
}

func init() {
	if strings.HasPrefix(os.Getenv(roleVariable), roleRun) {
		runtime.LockOSThread() // the thread that is traced and executes the program has to be the first
	}
}

// Main plays the part that this process was started for, if any, and then does not return. Call it first in main and
// in TestMain.
func Main() {
	role, socket, _ := strings.Cut(os.Getenv(roleVariable), " ")
	var err error
	switch role {
	case "":
		return
	case roleServe:
		err = serve(socket, os.Stdin, os.Stdout)
	case roleRun:
		err = become(socket, os.Args[1:])
	default:
		err = fmt.Errorf("%s is not for people", roleVariable)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tracer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// become has itself traced and turns into the program.
func become(socket string, argv []string) error {
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil { // it is traced from here on
		return fmt.Errorf("the tracer has refused: %w", err)
	}
	c.Close()
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, roleVariable+"=") {
			env = append(env, e)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	instructions := filter()
	prog := unix.SockFprog{Len: uint16(len(instructions)), Filter: &instructions[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("cannot install the filter: %w", errno)
	}
	return syscall.Exec(program, argv, env)
}
