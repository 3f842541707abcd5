package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// extract writes the regular files of a tar archive that are wanted below dir, which it makes. Nothing is
// written outside, whatever the names are.
func extract(archive io.Reader, dir string, wanted func(name string) bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(archive); ; {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot read the archive: %w", err)
		}
		name := path.Clean(header.Name)
		if header.Typeflag != tar.TypeReg || !wanted(name) {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("the archive has a file outside it: %q", header.Name)
		}
		if err := write(root, name, t); err != nil {
			return err
		}
	}
}

func write(root *os.Root, name string, from io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("the archive has a file twice: %q", name)
		}
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
