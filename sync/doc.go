// Package syncer keeps the central authentication service in step with the vault: it delivers the
// outbox (Outbox), brings counters back and levels the service's providers (Refresher), compares both sides and repairs
// what differs (Drift), finds drifted counters from codes of one token or of many (Attempt, Outbox.ResyncBatch), and whose a token is (Identify).
//
// The directory is named sync after its subject; the package is not, so that a bare sync.Mutex can
// never mean it. Connectors (openldap) live below and know one server each. Delivery is at least
// once and, but for cut-offs, which nothing holds back, in order per token; whether codes are accepted
// afterwards is decided by the vault as it is then, not by the entry. A change counts as delivered only when
// it was read back as written at every provider that can be reached.
package syncer
