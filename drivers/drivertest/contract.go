package drivertest

import (
	"fmt"
	"strings"
)

// property is a sentence of the contract between drivers and their owner.
type property int

// The ten properties, in the order in which Run proves them.
const (
	verdicts property = 1 + iota
	nothingToDo
	anyPath
	failures
	restarts
	tampering
	untouched
	unknownInterfaces
	noPacketLost
	scale
)

var contract = [...]struct{ name, says string }{
	verdicts: {"verdicts", "the verdict equals the oracle's, for the listed cases and for random policies and packets, in every " +
		"state of the flow table"},
	nothingToDo: {"nothing-to-do", "an Apply with nothing to do writes nothing"},
	anyPath:     {"any-path", "any path to a State leaves in the dataplane what the direct path leaves"},
	failures: {"failures", "an Apply that fails at any write, with the world moving on meanwhile, is mended by the next one; " +
		"one object that the dataplane refuses for good leaves all others enforced"},
	restarts: {"restarts", "restarted over an older world, a driver sweeps what is its own, leaves what is foreign, and never " +
		"touches what is right already"},
	tampering: {"tampering", "damage is repaired by the next resync"},
	untouched: {"untouched-before-apply", "nothing is written before the first Apply; after a reboot the persisted State " +
		"stands first"},
	unknownInterfaces: {"unknown-interfaces", "traffic of an unknown workload interface is dropped, also while the driver is closed"},
	noPacketLost:      {"no-packet-lost", "Close and a new Open lose no packet of an established or allowed flow, and let none through"},
	scale: {"scale", "what an Apply writes grows with what it changes, and the whole with policies, endpoints and distinct lists, " +
		"never with their product"},
}

// Property names what a Breach has broken: its number in the contract, and the sentence.
func (p property) String() string { return fmt.Sprintf("property %d: %s", int(p), contract[p].says) }

// test is the property's name as a test.
func (p property) test() string { return fmt.Sprintf("%02d-%s", int(p), contract[p].name) }

// Breach is the error of a driver that broke the contract.
type Breach struct {
	Property int    // its number, from 1
	Sentence string // of the contract
	What     error  // what happened
	Case     string // a case file that shows it, as small as it would go; "" if no case can
	Hint     string // what else there is to know: on a fresh dataplane it does not happen, say
}

func (b *Breach) Error() string {
	var sb strings.Builder
	fmt.Fprintf(&sb, "BROKEN, property %d of every driver: %s.\n%v", b.Property, b.Sentence, b.What)
	if b.Hint != "" {
		fmt.Fprintf(&sb, "\n(%s)", b.Hint)
	}
	if b.Case != "" {
		fmt.Fprintf(&sb, "\n%s\n%s%s", caseBegins, b.Case, caseEnds)
	}
	return sb.String()
}

// What surrounds a case file in the text of a Breach.
const (
	caseBegins = "---- a case that shows it: keep it as drivers/drivertest/testdata/NAME.txtar ----"
	caseEnds   = "---- end of the case ----"
)

func (b *Breach) Unwrap() error { return b.What }

// breach says which sentence err breaks. What says so already, and what is the harness's fault, stays as it is.
func breach(p property, err error) error {
	return &Breach{Property: int(p), Sentence: contract[p].says, What: err}
}
