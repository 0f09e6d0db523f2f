package calcgraph

import (
	"fmt"

	"github.com/tortie/tortie/api"
	"github.com/tortie/tortie/drivers"
)

// serviceLabel is the label of an EndpointSlice that names its service.
const serviceLabel = "kubernetes.io/service-name"

// services holds EndpointSlices by service.
type services struct {
	byName map[serviceName]*service
	slices map[api.Key]*slice
	touch  func(*set)
	turn   func(st *set, d int)
}

type serviceName struct{ namespace, name string }

// service is there if it has slices, or if a set asks for it.
type service struct {
	name   serviceName
	slices map[*slice]struct{}
	sets   []*set // filled ones
	users  int    // all sets
}

type slice struct {
	object  *api.EndpointSlice
	service *service
	partial bool // there are addresses or ports that can't be read
}

func newServices() *services {
	return &services{byName: map[serviceName]*service{}, slices: map[api.Key]*slice{}}
}

// set takes in an EndpointSlice, nil if it is gone, and returns what is wrong with it.
func (s *services) set(key api.Key, o *api.EndpointSlice) []Problem {
	if old := s.slices[key]; old != nil {
		delete(s.slices, key)
		s.give(old, -1)
		delete(old.service.slices, old)
		s.prune(old.service)
	}
	if o == nil || o.Labels[serviceLabel] == "" {
		return nil
	}
	sv := s.find(key.Namespace, o.Labels[serviceLabel])
	sl := &slice{object: o, service: sv}
	probs := problems{key: key}
	sl.members(drivers.SetPort, func(member) {}, func(field, reason string) { probs.add(field, "%s", reason) })
	probs.unread(o.Partial)
	sl.partial = len(probs.list) > 0
	sv.slices[sl] = struct{}{}
	s.slices[key] = sl
	s.give(sl, +1)
	return probs.list
}

func (s *services) find(namespace, name string) *service {
	n := serviceName{namespace, name}
	sv := s.byName[n]
	if sv == nil {
		sv = &service{name: n, slices: map[*slice]struct{}{}}
		s.byName[n] = sv
	}
	return sv
}

func (s *services) prune(sv *service) {
	if len(sv.slices) == 0 && sv.users == 0 {
		delete(s.byName, sv.name)
	}
}

// get returns a service for one more set.
func (s *services) get(namespace, name string) *service {
	sv := s.find(namespace, name)
	sv.users++
	return sv
}

// letGo forgets a set of a service.
func (s *services) letGo(sv *service, st *set) {
	sv.users--
	for i, x := range sv.sets {
		if x == st {
			sv.sets = append(sv.sets[:i], sv.sets[i+1:]...)
			break
		}
	}
	s.prune(sv)
}

// fill gives a new set its members.
func (s *services) fill(st *set) {
	for sl := range st.service.slices {
		sl.members(st.kind, func(m member) { st.add(m, +1) }, nil)
		if sl.partial {
			s.turn(st, +1)
		}
	}
	st.service.sets = append(st.service.sets, st)
}

// give tells the service's sets that a slice came or went.
func (s *services) give(sl *slice, d int32) {
	for _, st := range sl.service.sets {
		sl.members(st.kind, func(m member) { st.add(m, d) }, nil)
		if sl.partial {
			s.turn(st, int(d))
		}
		s.touch(st)
	}
}

// members calls fn for each member that the slice gives to a set of a kind, and problem (if not nil) for what can't be
// understood. Endpoints that are not ready count: policy must not flap with probes.
func (sl *slice) members(kind drivers.SetKind, fn func(member), problem func(field, reason string)) {
	bad := func(reason, format string, args ...any) {
		if problem != nil {
			problem(fmt.Sprintf(format, args...), reason)
		}
	}
	if sl.object.AddressType == "FQDN" {
		bad("names are not resolved", "addressType")
		return
	}
	for i, p := range sl.object.Ports {
		if kind != drivers.SetPort {
			break
		}
		if p.Port == nil {
			bad("a port without a number can't be matched", "ports[%d].port", i)
		} else if _, ok := protoOf(p.Protocol); !ok {
			bad("the protocol is not known", "ports[%d].protocol", i)
		}
	}
	for i, e := range sl.object.Endpoints {
		for j, text := range e.Addresses {
			a, err := api.ParseAddr(text)
			if err != nil {
				bad(err.Error(), "endpoints[%d].addresses[%d]", i, j)
				continue
			}
			m := addrMember(a)
			if kind == drivers.SetNet {
				fn(m)
				continue
			}
			for _, p := range sl.object.Ports {
				if proto, ok := protoOf(p.Protocol); ok && p.Port != nil {
					fn(m.withPort(proto, *p.Port))
				}
			}
		}
	}
}

// protoOf returns a protocol's number; nil is TCP.
func protoOf(p *api.Protocol) (uint8, bool) {
	if p == nil {
		return 6, true
	}
	return p.Num()
}
