// Package fake is the reference driver: it enforces a State in memory, as drivers.Evaluate says.
//
//	State + Changes ─► Driver.Apply ─► World ─► Evaluate(packet)
//
// A World plays the kernel. It refuses what refers to something that is not there, counts writes, fails them on demand,
// holds things that are not ours, and outlives the drivers that are opened over it. A Driver does only what the Changes
// say, so that a wrong hint shows as a World that differs from the State. It is the agent's dry run too.
//
//	world.go   World: what it holds, and how tests look at it and meddle with it
//	kernel.go  its system calls: writes of one object each
//	driver.go  Driver: Open, Apply, Close
//	apply.go   one Apply
//	host.go    Attacher, Inventory and the other optional interfaces
package fake
