package cni

import "github.com/tortie/tortie/internal/faultpoint"

// Where tests have the plugin die.
var (
	addReady     = faultpoint.New("shim-add:ready")
	addAllocated = faultpoint.New("shim-add:allocated")
	addAttached  = faultpoint.New("shim-add:attached")
	addTold      = faultpoint.New("shim-add:told")

	delBegun    = faultpoint.New("shim-del:begun")
	delNoted    = faultpoint.New("shim-del:noted")
	delDetached = faultpoint.New("shim-del:detached")
	delReleased = faultpoint.New("shim-del:released")
)
