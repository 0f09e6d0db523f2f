//go:build !faultpoints

package faultpoint

// Point is a place.
type Point struct{}

// New names a place.
func New(string) Point { return Point{} }

// Hit does nothing.
func (Point) Hit() {}

// Setup does nothing.
func Setup() {}
