package agentapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"time"
)

// DefaultSocket is where an agent listens unless it is told otherwise.
const DefaultSocket = "/run/tortie/agent.sock"

// Client asks the agent. It is safe for concurrent use: each call is a connection of its own.
type Client struct {
	path string
}

// NewClient returns a client of the agent at the socket path.
func NewClient(path string) *Client { return &Client{path: path} }

// Attach plugs a workload in, and returns once its policy is enforced. netns stays the caller's.
func (c *Client) Attach(ctx context.Context, r AttachRequest, netns *os.File) (AttachResponse, error) {
	var out AttachResponse
	err := c.call(ctx, VerbAttach, r, netns, &out)
	return out, err
}

// Detach unplugs a workload.
func (c *Client) Detach(ctx context.Context, r DetachRequest) error {
	return c.call(ctx, VerbDetach, r, nil, nil)
}

// Check asks whether an attachment is as Attach has made it. netns stays the caller's.
func (c *Client) Check(ctx context.Context, r CheckRequest, netns *os.File) error {
	return c.call(ctx, VerbCheck, r, netns, nil)
}

// List returns the attachments that r speaks of.
func (c *Client) List(ctx context.Context, r ListRequest) (ListResponse, error) {
	var out ListResponse
	err := c.call(ctx, VerbList, r, nil, &out)
	return out, err
}

// Status returns what the agent has to say of itself.
func (c *Client) Status(ctx context.Context, r StatusRequest) (Status, error) {
	var out Status
	err := c.call(ctx, VerbStatus, r, nil, &out)
	return out, err
}

// Explain says what happens to a packet on the agent's node.
func (c *Client) Explain(ctx context.Context, r ExplainRequest) (ExplainResponse, error) {
	var out ExplainResponse
	err := c.call(ctx, VerbExplain, r, nil, &out)
	return out, err
}

// State returns the State that the agent applied last, as drivers.DecodeState reads it.
func (c *Client) State(ctx context.Context) ([]byte, error) {
	var out json.RawMessage
	err := c.call(ctx, VerbState, nil, nil, &out)
	return out, err
}

// call makes one request. Errors that the agent answered are of type *Error; others mean that it could not be asked.
func (c *Client) call(ctx context.Context, verb Verb, in any, file *os.File, out any) error {
	req := Request{Version: Version, Verb: verb}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding %s: %w", verb, err)
		}
		req.Body = b
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return fmt.Errorf("asking the agent at %s: %w", c.path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // wakes up reads and writes
	defer stop()
	var resp Response
	// An agent that refuses a client answers before it has read what the client writes.
	wErr := WriteRequest(conn.(*net.UnixConn), req, file)
	if err = ReadFrame(conn, &resp, MaxResponse); err != nil && wErr != nil {
		err = wErr
	}
	if ctxErr := ctx.Err(); err != nil && ctxErr != nil {
		err = ctxErr
	}
	if err != nil {
		return fmt.Errorf("asking the agent at %s for %s: %w", c.path, verb, err)
	}
	if resp.Error != nil {
		return resp.Error
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(resp.Body, out); err != nil {
		return fmt.Errorf("reading the agent's answer to %s: %w", verb, err)
	}
	return nil
}
