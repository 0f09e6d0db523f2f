package workload

import "github.com/tortie/tortie/internal/faultpoint"

// Where tests have the agent die.
var (
	addAsked     = faultpoint.New("add:asked")
	addIntent    = faultpoint.New("add:intent")
	addAllocated = faultpoint.New("add:allocated")
	addLedger    = faultpoint.New("add:ledger")
	addLink      = faultpoint.New("add:link")
	addCut       = faultpoint.New("add:cut")
	addTold      = faultpoint.New("add:told")
	addStored    = faultpoint.New("add:stored")
	addSeen      = faultpoint.New("add:seen")
	addEnforced  = faultpoint.New("add:enforced")
	addNoted     = faultpoint.New("add:noted")

	delAsked     = faultpoint.New("del:asked")
	delLedger    = faultpoint.New("del:ledger")
	delTold      = faultpoint.New("del:told")
	delClosed    = faultpoint.New("del:closed")
	delCut       = faultpoint.New("del:cut")
	delLink      = faultpoint.New("del:link")
	delReleased  = faultpoint.New("del:released")
	delForgotten = faultpoint.New("del:forgotten")
	delDone      = faultpoint.New("del:done")
)
