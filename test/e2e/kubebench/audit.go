package kubebench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// request is one of the agents' or the controllers', out of the API server's audit log.
type request struct {
	AuditID string
	Stage   string
	Verb    string
	URI     string `json:"requestURI"`
	Client  string `json:"userAgent"`
	User    struct {
		Username string
		Extra    map[string][]string
	}
	ObjectRef struct{ Resource, Subresource, Name string }
	Object    json.RawMessage    `json:"requestObject"`
	Status    struct{ Code int } `json:"responseStatus"`
	At        time.Time          `json:"requestReceivedTimestamp"`
}

// what is its verb and what it is for.
func (r *request) what() string {
	s := r.Verb + " " + r.ObjectRef.Resource
	if r.ObjectRef.Resource == "" {
		path, _, _ := strings.Cut(r.URI, "?")
		s = r.Verb + " " + path
	}
	if r.ObjectRef.Subresource != "" {
		s += "/" + r.ObjectRef.Subresource
	}
	return s
}

const serviceAccount = "system:serviceaccount:tortie-system:"

// who is "tortie-agent" or "tortie-controllers".
func (r *request) who() string { return strings.TrimPrefix(r.User.Username, serviceAccount) }

// readAudit gives each request once: a watch is written down when it begins and when it ends.
func readAudit(log io.Reader, each func(*request)) error {
	seen := map[string]bool{}
	lines := bufio.NewReaderSize(log, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil // a line without an end is being written
		} else if err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		r := &request{}
		if err := json.Unmarshal(line, r); err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
		if !strings.HasPrefix(r.User.Username, serviceAccount) || seen[r.AuditID] {
			continue
		}
		seen[r.AuditID] = true
		each(r)
	}
}
