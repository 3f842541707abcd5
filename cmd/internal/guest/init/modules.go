package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/guest/job"
)

// modules are kernel modules to load. Those that the root does not take are loaded beside everything else: USB/IP
// makes sixteen buses, which takes a second.
type modules struct {
	files   []*os.File // opened early: the initramfs is out of sight when the root has changed
	forRoot int
	loaded  chan error
}

func openModules(j job.Job) (*modules, error) {
	m := &modules{forRoot: j.ForRoot, loaded: make(chan error, 1)}
	for _, name := range j.Modules {
		f, err := os.Open(filepath.Join("/modules", name))
		if err != nil {
			return nil, err
		}
		m.files = append(m.files, f)
	}
	return m, nil
}

func (m *modules) loadFirst(job.Job) error {
	if err := load(m.files[:m.forRoot]); err != nil {
		return err
	}
	go func() { m.loaded <- load(m.files[m.forRoot:]) }()
	return nil
}

func (m *modules) await(job.Job) error { return <-m.loaded }

func load(files []*os.File) error {
	for _, f := range files {
		err := unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%s: %w", filepath.Base(f.Name()), err)
		}
	}
	return nil
}
