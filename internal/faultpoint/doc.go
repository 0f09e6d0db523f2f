// Package faultpoint names places at which a test wants to see a process die.
//
// A place is a variable, so that the binary can say which there are, and is passed where it is hit:
//
//	var addWritten = faultpoint.New("add:written")
//	...
//	addWritten.Hit()
//
// Without the build tag faultpoints all of this compiles to nothing. With it, the environment variable TORTIE_FAULT says
// where to die: it is the path of a file that holds the name of a place. Whoever hits that place removes the file and kills
// its process, as a crash would. Another file may be put there at any time. TORTIE_FAULT=list prints the names.
package faultpoint

// Variable is the environment variable.
const Variable = "TORTIE_FAULT"
