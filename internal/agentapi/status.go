package agentapi

import (
	"encoding/json"
	"net/netip"
	"time"
)

// StatusRequest asks for Status.
type StatusRequest struct {
	// Inspect looks for foreign rules now, instead of telling what the last look saw.
	Inspect bool `json:"inspect,omitempty"`
}

// Status is what an agent has to say of itself and of its node.
type Status struct {
	Node      string         `json:"node"`
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	Started   time.Time      `json:"started"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	Ready     bool           `json:"ready"`
	NotReady  []string       `json:"notReady,omitempty"` // what is missing

	Driver    DriverStatus     `json:"driver"`
	Store     StoreStatus      `json:"store"`
	Inputs    []InputStatus    `json:"inputs"`
	Counts    Counts           `json:"counts"`
	Apply     ApplyStatus      `json:"apply"`
	Persisted PersistStatus    `json:"persisted"`
	Endpoints []EndpointStatus `json:"endpoints"`
	Problems  []Problem        `json:"problems,omitempty"`
	Foreign   []Foreign        `json:"foreign,omitempty"`
	ForeignAt *time.Time       `json:"foreignAt,omitempty"` // of the last look
}

// DriverStatus is the dataplane and what it can do.
type DriverStatus struct {
	Name     string          `json:"name"`
	Features json.RawMessage `json:"features"` // drivers.Features
}

// StoreStatus is the connection to the store.
type StoreStatus struct {
	Connected bool              `json:"connected"`
	Since     time.Time         `json:"since"`
	Error     string            `json:"error,omitempty"`
	Kinds     map[string]string `json:"kinds,omitempty"` // kinds that can't be listed, and why
	// Backlog is how many WorkloadEndpoints of workloads that are gone wait to be deleted from the store.
	Backlog int `json:"backlog,omitempty"`
}

// InputStatus says whether an input of the graph is complete.
type InputStatus struct {
	Name   string `json:"name"`
	InSync bool   `json:"inSync"`
}

// Counts are the sizes of the State.
type Counts struct {
	Endpoints int `json:"endpoints"`
	Policies  int `json:"policies"`
	Sets      int `json:"sets"`
	Members   int `json:"members"`
	Routes    int `json:"routes"`
	Peers     int `json:"peers"`
}

// ApplyStatus is how the dataplane took the State.
type ApplyStatus struct {
	InSync     bool      `json:"inSync"`            // the State follows the store; before that the kernel isn't touched
	Boot       string    `json:"boot,omitempty"`    // what was applied after a reboot, before the store answered
	Started    time.Time `json:"started,omitzero"`  // of an Apply that is running
	Last       time.Time `json:"last,omitzero"`     // end of the last Apply
	DurationMS float64   `json:"durationMS"`        // of the last Apply
	Success    time.Time `json:"success,omitzero"`  // end of the last Apply without any error
	Error      string    `json:"error,omitempty"`   // of the last Apply
	Retry      time.Time `json:"retry,omitzero"`    // when it is tried again
	Pending    int       `json:"pending,omitempty"` // objects on their way to the dataplane
	Failed     []Problem `json:"failed,omitempty"`  // objects that the dataplane refused
}

// PersistStatus is the file that protects the host after a reboot.
type PersistStatus struct {
	Last  time.Time `json:"last,omitzero"`
	Bytes int64     `json:"bytes,omitempty"`
	Error string    `json:"error,omitempty"`
}

// EndpointStatus is one interface that policy is enforced on.
type EndpointStatus struct {
	Kind      string       `json:"kind"` // "workload" or "host"
	Sandbox   string       `json:"sandbox,omitempty"`
	Interface string       `json:"interface,omitempty"` // inside the sandbox
	Name      string       `json:"name"`
	HostIface string       `json:"hostIface"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Enforced  bool         `json:"enforced"`
	Reason    string       `json:"reason,omitempty"` // why it isn't
	Losses    []string     `json:"losses,omitempty"` // what the driver can't express, and what it does instead
	Phase     string       `json:"phase,omitempty"`  // "attaching" or "detaching", if it is one of these
}

// Problem is something that isn't as its owner wants it.
type Problem struct {
	Object string `json:"object"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
}

// Foreign is something on the host, not ours, that is in the way of what policy allows.
type Foreign struct {
	Where string `json:"where"`
	What  string `json:"what"`
	Mend  string `json:"mend"`
}
