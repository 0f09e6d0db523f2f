package linux

// Every kernel object that the driver makes is recognisable as ours without memory: by one of these names.
const (
	driverName = "nftables"

	// TableName is the name of our nftables tables, in the families inet and arp.
	TableName = "tortie"

	// RouteProtocol marks our routes in the kernel (rtnetlink's rtm_protocol).
	RouteProtocol = 84

	// MarkPass is the bit of the packet mark that says "pass to the next tier" between a policy's chain and its
	// tier's. It is cleared before a tier that uses it and again after it, in one run of one base chain, so that
	// nobody else's use of the bit can change a verdict; what another program kept in the bit is lost for packets
	// that are judged by a policy with a Pass rule.
	MarkPass uint32 = 0x10000000
)
