//go:build faultpoints

package faultpoint

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// names of all places of the binary.
var names []string

// Point is a place.
type Point struct{ name string }

// New names a place.
func New(name string) Point {
	if slices.Contains(names, name) {
		panic("two fault points " + name)
	}
	names = append(names, name)
	return Point{name}
}

// Setup is called first of all by a main function.
func Setup() {
	if os.Getenv(Variable) != "list" {
		return
	}
	slices.Sort(names)
	fmt.Println(strings.Join(names, "\n"))
	os.Exit(0)
}

// Hit ends the process if it is told to end here.
func (p Point) Hit() {
	path := os.Getenv(Variable)
	if path == "" {
		return
	}
	b, err := os.ReadFile(path)
	if err != nil || strings.TrimSpace(string(b)) != p.name || os.Remove(path) != nil {
		return
	}
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Kill()
	}
	if err != nil {
		panic(err)
	}
	select {} // until it is dead
}
