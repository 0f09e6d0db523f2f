// Package faults holds the tests in which something around Tortie breaks while traffic runs: the store, disks, files,
// interfaces, processes. docs/faults.md says which test is about which fault.
//
// Each test keeps flows that are allowed and packets that are denied going from before the fault until after it, and ends
// with the same questions: was an allowed packet lost, did a denied one get through, is a rule, route, interface, address
// or file left over, and does the node hold exactly what an agent would make that comes to an empty one.
package faults
