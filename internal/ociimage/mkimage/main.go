// Command mkimage writes an archive of images (package ociimage) out of folders of programs, one for each architecture:
//
//	mkimage -o tortie.tar -name ghcr.io/tortie/tortie:v1 -entrypoint /tortie amd64=bin/amd64 arm64=bin/arm64
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/tortie/tortie/internal/ociimage"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "mkimage: %v\n", err)
		os.Exit(1)
	}
}

// pairs are flags "KEY=VALUE" that may be given several times.
type pairs map[string]string

func (p pairs) String() string { return "" }

func (p pairs) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("want KEY=VALUE")
	}
	p[k] = v
	return nil
}

func run(args []string) error {
	var names []string
	labels := pairs{}
	f := flag.NewFlagSet("mkimage", flag.ContinueOnError)
	out := f.String("o", "image.tar", "archive to write")
	entry := f.String("entrypoint", "", "program that the image runs")
	f.Func("name", "REPOSITORY:TAG of the image; may be given several times", func(s string) error {
		names = append(names, s)
		return nil
	})
	f.Var(labels, "label", "KEY=VALUE of the image; may be given several times")
	if err := f.Parse(args); err != nil {
		return err
	}
	config := ociimage.Config{Entrypoint: []string{*entry}, Env: []string{"PATH=/"}, WorkingDir: "/", Labels: labels}
	var images []ociimage.Image
	for _, arg := range f.Args() {
		arch, dir, ok := strings.Cut(arg, "=")
		if !ok {
			return fmt.Errorf("%q: want ARCHITECTURE=FOLDER", arg)
		}
		files, err := programs(dir)
		if err != nil {
			return err
		}
		images = append(images, ociimage.Image{Arch: arch, Files: files, Config: config})
	}
	return write(*out, names, images)
}

// programs reads what is in a folder.
func programs(dir string) ([]ociimage.File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []ociimage.File
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, ociimage.File{Name: e.Name(), Mode: 0o755, Data: data})
	}
	return files, nil
}

// write writes beside the archive, and puts it in its place when it is whole.
func write(path string, names []string, images []ociimage.Image) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	w := bufio.NewWriter(tmp)
	if err := errors.Join(ociimage.Write(w, names, images), w.Flush(), tmp.Chmod(0o644), tmp.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}
