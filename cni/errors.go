package cni

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tortie/tortie/internal/agentapi"
)

// Error codes beside those of the CNI specification.
const (
	CodeConflict  = 100 // another attachment is in the way
	CodeDiffers   = 101 // CHECK: the attachment is not as ADD has made it
	CodeNoAddress = 102 // there is no address to give
	CodeAgent     = 103 // the agent met an error

	codeUnavailable        = 50 // STATUS: no ADD can be served
	codeUnavailableLimited = 51 // STATUS: and containers that are there may be limited
)

// asked puts an error of asking the agent into a CNI error.
func (c *conf) asked(doing string, err error) error {
	code, msg := uint(CodeAgent), doing
	switch agentapi.CodeOf(err) {
	case "":
		return types.NewError(types.ErrTryAgainLater, fmt.Sprintf("%s: no Tortie agent answers at %s; is `tortie agent` running on this node?",
			doing, c.Socket), err.Error())
	case agentapi.CodeVersion:
		return types.NewError(types.ErrTryAgainLater, doing+": the agent and this plugin are of different releases; is an upgrade under way?",
			err.Error())
	case agentapi.CodeUnavailable, agentapi.CodeNotEnforced:
		code, msg = types.ErrTryAgainLater, doing+": the Tortie agent could not do it yet; `tortie status` says more"
	case agentapi.CodeUnknownPod: // the agent has waited already: the pod may be gone, and its runtime has to know
		code, msg = types.ErrTryAgainLater, doing+": the Tortie agent does not know the pod"
	case agentapi.CodeBadRequest, agentapi.CodeUnsupported:
		code = types.ErrInvalidNetworkConfig
	case agentapi.CodeForbidden:
		msg = doing + ": the Tortie agent does not take requests from this user; run the plugin as root"
	case agentapi.CodeConflict:
		code = CodeConflict
	case agentapi.CodeNotFound:
		code = types.ErrUnknownContainer
	case agentapi.CodeDiffers:
		code = CodeDiffers
	case agentapi.CodeNoAddress:
		code = CodeNoAddress
	}
	return types.NewError(code, msg, err.Error())
}

// answered reports whether err is one that the agent answered, not that it could not be asked.
func answered(err error) bool {
	code := agentapi.CodeOf(err)
	return err == nil || code != "" && code != agentapi.CodeVersion
}

// withDetails adds to what an error says; its code stays.
func withDetails(err error, more ...error) error {
	extra := errors.Join(more...)
	if extra == nil {
		return err
	}
	var e *types.Error
	if !errors.As(err, &e) {
		return fmt.Errorf("%w; %w", err, extra)
	}
	details := extra.Error()
	if e.Details != "" {
		details = e.Details + "; " + details
	}
	return types.NewError(e.Code, e.Msg, details)
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration", fmt.Sprintf(format, args...))
}
