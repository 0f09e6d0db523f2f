package ledger

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/tortie/tortie/drivers"
)

// maxIface is how long the name of an interface may be (IFNAMSIZ less the final zero).
const maxIface = 15

// HostIface returns the name of the host's side of an interface: prefix and the beginning of a hash of its identity.
func HostIface(prefix, sandbox, iface string) string {
	sum := sha256.Sum256([]byte(sandbox + "\x00" + iface))
	name := prefix + hex.EncodeToString(sum[:])
	return name[:maxIface]
}

// MAC returns the address of the workload's side: a function of the identity, so that an attach that is repeated after
// a crash gives the same one. It is locally administered and no group address.
func MAC(sandbox, iface string) drivers.MAC {
	sum := sha256.Sum256([]byte("mac\x00" + sandbox + "\x00" + iface))
	m := drivers.MAC(sum[:6])
	m[0] = m[0]&^0x03 | 0x02
	return m
}
