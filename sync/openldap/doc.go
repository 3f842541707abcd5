// Package openldap keeps tokens in OpenLDAP 2.5 directories whose OTP overlay (slapo-otp) checks the
// codes at every simple bind with password‖code. The directory is one server, or several providers that replicate
// each other.
//
// A token is the entry cn=YK12345678-2 below TokensBase (device + oathHOTPToken); a user's entry links
// to it by oathHOTPToken in the auxiliary class oathHOTPUser. The schema makes that link
// single-valued, so a user has one token (a second value is refused with constraintViolation). The
// overlay stores the last used counter, absent before the first; everything outside this package
// counts the next one. The overlay takes no resync, keeps no failure count and does not write oathLastLogin: the counter
// is computed by the desk and written by compare-and-set, against logins that happen meanwhile.
//
// Everything fails closed. An entry has its oathSecret only while the token is active and somebody's. Disabling
// deletes it. Unassigning deletes it and the links that can be seen: a user's entry that was moved out of
// PeopleBase, or is hidden by an access rule, keeps its link and cannot log in any more either. Both
// count as done when compare finds no secret in the entry (noSuchAttribute), or there is no entry. The class
// oathHOTPUser stays: a user of that class without a usable token cannot log in, whereas
// removing it would let the bare password in. It is therefore never removed here. A Remove does what an Unassign does, and
// then deletes the entry.
//
// The counter belongs to a seed, and is never lowered for the same one. Whether it is the same one is told by comparing
// the secrets and, where there is none, by the entry's description, "tokendesk generation 2 of DESK". Another
// seed, such as that of a desk whose vault was lost, is replaced together with its counter; but not a later generation
// of this desk. A token that somebody else's entry still links is left alone until that link is gone.
//
// # Several providers
//
// In OpenLDAP before 2.7 a login moves the counter on the provider where it happens and nowhere else (ITS#10169), and
// any other write of the entry, once replicated, brings the writer's counter along: a provider that was ahead falls back,
// and codes that were used there count again. Therefore every write carries the highest counter that any
// reachable provider has for this seed, and the write is made where the entry is newest (by entryCSN), so
// that a provider which has missed something, a cut-off above all, cannot hand its old entry on. Then every
// reachable provider must show the change. One that does not is read again until the replication's grace is over, and
// then written directly, with the highest counter once more; if a login was counted between reading and replication,
// the counter goes up again. Cut-offs do not wait for replication: they are made everywhere at once.
//
// A provider that cannot be reached is left out, and is asked again after a pause which is five times as long as it took to
// find out. One that answers but does not let the desk in (certificate, credentials) leaves no change delivered.
//
// It may have what it has told nobody. While any is left out, a cut-off, and a Put, Assign or Enable without a seed,
// is therefore written at the others even where it is there already, once per Apply, so that theirs is the newer entry
// when it returns; an Unassign or Remove also writes its user's entry, with the class and without the link, unless that links
// another token. A cut-off of a token that no reachable provider has is not delivered: nothing there could be newer.
//
// Nor could anything be newer than what is deleted: a provider that returns with a write which the others have not seen keeps
// its entry, secret and all, and nothing ever replicates it away (seen with 2.5.13). So a Remove deletes nothing while any is
// left out: it closes, and says so (syncer.ErrRemains). A Put of a later generation may go over what it leaves.
//
// While any is left out, no change is refused either, but counts as unavailable, for what the others do not have: an
// entry or user, the seed's generation, a user without another token. Providers that were only being left alone are
// asked before that. Refusals that nobody could lift stay: digits without parameters, a lacking right or base entry, a
// damaged counter, a later generation of this desk. Where all were reached and disagree about users, the change is not
// confirmed until replication has settled it.
//
// A write that was sent and never answered must not arrive later, behind a cut-off that was confirmed: connections discard
// what is unsent when they are closed (SO_LINGER), and a modification of a token asserts the entryCSN that was read (RFC
// 4528). A cut-off that follows an unanswered write of a secret is written even where nothing is left to remove.
//
// What this package cannot close: a login that is counted at a provider after its last reading and before replication
// arrives there falls back to what was written; and two providers that were apart decide by their clocks, whole entry
// by whole entry: what only the one that returns knew of an entry written meanwhile, such as logins or a user's new
// password, is lost. An Advance does not say whether codes may be accepted: where the only provider that can be
// reached has missed a cut-off, it would make the entry with the secret the newer one. So the outbox sends a Put without a
// seed instead, for a token of which no codes may be accepted. With a seed it is the other way round: where the only provider that
// can be reached has missed an opening, the entry without the secret would become the newer one. There an Advance is a Put.
//
// # Operations
//
// Per change and provider:
//
//	                             searches  compares  writes
//	reading    Put, Enable           2         1       -      1 search more if somebody links the token: is it the user?
//	           Assign                3         1       -
//	           Advance               1         -       -
//	           Disable               1         1       -
//	           Unassign, Remove      2         1       -
//	writing                          -         -       1      at one provider; cut-offs at each
//	           Assign, Unassign      -         -       1      more for each user's entry, likewise; and with Remove
//	           Remove                -         -       1      more, which deletes
//	confirming                       2         1       -      again at other providers until replication has come
//	           Remove                2         -       -      more, until no provider shows it
//
// An entry that is missing costs a search for its base. Of a change that is there already nothing is written; after Put,
// Enable and Assign the reading has then confirmed it. None of that can go: two entries hold a
// token's state (2 searches), the secret shows itself to compare only, and what was read before a write proves nothing
// about afterwards. The requests of one reading go out together and take one round trip.
//
// # Rights of the bind identity
//
// In slapd.conf syntax (olcAccess takes the same words), with BIND, TOKENS and PEOPLE for the
// configured names; Check verifies each and names the missing line:
//
//	access to attrs=oathSecret by dn.exact="BIND" =wc by * none
//	access to dn.subtree="TOKENS" by dn.exact="BIND" write by * none
//	access to dn.subtree="PEOPLE" attrs=objectClass,oathHOTPToken by dn.exact="BIND" write by * read
//	access to dn.subtree="PEOPLE" attrs=entry,children,uid by dn.exact="BIND" read by * read
//	limits dn.exact="BIND" size.prtotal=unlimited
//
// On oathSecret that is write and compare (=wc), and neither read nor search, on purpose: whoever may
// search it can find a seed out byte by byte with substring filters, for which the schema has a matching
// rule. Compare is enough to confirm that a secret is there and that it is the right one. The overlay
// itself needs no rights.
//
// BIND is who the bind DN and password say, or, without a password, whom the server takes the client certificate or the
// local user for (SASL EXTERNAL, RFC 4422 appendix A; see authz-regexp).
//
// What this package does not do: deleting entries of anything but tokens.
package openldap
