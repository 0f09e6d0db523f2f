// Package agentapi is the protocol of the agent's Unix socket: its messages, and a client.
//
//	client ── 4-byte length, JSON Request (+ descriptors with its first bytes) ──► agent
//	client ◄── 4-byte length, JSON Response ────────────────────────────────────── agent
//
// A connection carries any number of requests, one after another. A client that hangs up cancels what it asked for.
// Unknown fields are refused: a new field comes with a new Version, and each side speaks one version of skew.
//
//	message.go   Request, Response, Error, and the bodies of attach, detach, check, list and explain
//	status.go    the body of status
//	frame.go     lengths and limits
//	fds_*.go     passing descriptors
//	client.go    Client
//	note.go      notes of what is to be detached, for when no agent listens
//
// The package imports the standard library only, so that the CNI plugin stays small.
package agentapi
