package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"tokendesk/cmd/internal/guest/job"
)

// options are the command line's.
type options struct {
	log     string
	tpm     bool
	memory  int // MB
	udev    string
	command []string
}

// boot runs the guest to its end, with nothing left behind.
func boot(ctx context.Context, root string, k kernel, o options) (int, error) {
	scratch, err := os.MkdirTemp("", "guest")
	if err != nil {
		return ownFailed, err
	}
	defer os.RemoveAll(scratch)
	j, err := newJob(ctx, scratch, k, o)
	if err != nil {
		return failure(ctx, err)
	}
	initramfs, err := makeInitramfs(ctx, root, scratch, k, j)
	if err != nil {
		return failure(ctx, err)
	}
	log, err := newLog(o.log)
	if err != nil {
		return ownFailed, err
	}
	defer log.Close()
	args, err := machine(k, initramfs, o)
	if err != nil {
		return ownFailed, err
	}
	var files []*os.File
	if o.tpm {
		tpm, err := startTPM(ctx, scratch)
		if err != nil {
			return ownFailed, err
		}
		defer tpm.stop()
		args, files = append(args, tpm.arguments()...), append(files, tpm.line)
	}
	code, err := supervise(ctx, scratch, args, log, files...)
	if code != 0 {
		showTail(os.Stderr, log)
	}
	return code, err
}

func newJob(ctx context.Context, scratch string, k kernel, o options) (job.Job, error) {
	dir, err := os.Getwd()
	if err != nil {
		return job.Job{}, err
	}
	j := job.Job{Version: k.version, ModuleTree: k.tree(), TPM: o.tpm, Dir: dir, Command: o.command}
	if o.udev == "" {
		return j, nil
	}
	if j.Udev, err = filepath.Abs(o.udev); err != nil {
		return job.Job{}, err
	}
	j.HWDB, err = compileHWDB(ctx, scratch, j.Udev)
	return j, err
}

// initramfsAt is where the initramfs lies in the guest's memory: far above the kernel, which is at 16 MB and
// takes 60, and far below the firmware's tables at the end.
const (
	initramfsAt = 128 << 20
	leastMemory = 256 // MB
)

// machine is qemu's command line, for one that runs where the initramfs is. The console goes to its standard error, the reports to its standard output.
func machine(k kernel, initramfs string, o options) ([]string, error) {
	if o.memory < leastMemory {
		return nil, fmt.Errorf("%d MB are not enough memory for the guest: it takes %d", o.memory, leastMemory)
	}
	info, err := os.Stat(initramfs)
	if err != nil {
		return nil, err
	}
	// Given an ELF kernel with -initrd, qemu 7.2 puts the initramfs over the ACPI tables if there is a TPM. So
	// it is put where we say, and the kernel is told of it, and to leave that memory alone until it has copied it.
	place := fmt.Sprintf("initrdmem=%#x,%d memmap=%#x$%#x", initramfsAt, info.Size(), roundUp(info.Size()), initramfsAt)
	return []string{
		"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", strconv.Itoa(o.memory),
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-kernel", k.image(),
		"-device", fmt.Sprintf("loader,file=%s,addr=%#x,force-raw=on", filepath.Base(initramfs), initramfsAt),
		// The mitigations protect nothing here, and cost.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on " + place,
		"-virtfs", "local,path=/,mount_tag=hostroot,security_model=none,readonly=on,multidevs=remap",
		"-chardev", "file,id=console,path=/dev/stderr,append=on", "-serial", "chardev:console",
		"-chardev", "stdio,id=reports,signal=off", "-serial", "chardev:reports",
	}, nil
}

// roundUp is a whole number of pages.
func roundUp(size int64) int64 {
	const page = 4096
	return (size + page - 1) / page * page
}
