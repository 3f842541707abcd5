package localapi

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"tokendesk/cmd/internal/api"
	"tokendesk/provision"
)

const maxBody = 64 << 10

// TokenPath (exported, or the router would not fill it when embedded) is in the path of every operation on one token.
type TokenPath struct {
	Device      string `path:"device" pattern:"^[a-z]{2,8}-[0-9a-z]{1,20}$" patternDescription:"the name of a device" doc:"Device name" example:"yk-12345678"`
	Application string `path:"application" maxLength:"40" pattern:"^[a-z0-9]+(:[a-z0-9._-]+)?$" patternDescription:"the name of an application" doc:"Application on the device: otp1, otp2, hotp1 to hotp3, oath:NAME, piv; token: the device is one itself" example:"otp2"`
}

type (
	answer[T any] struct {
		Status int
		Body   T
	}
	onToken[T any] struct {
		TokenPath
		Body T
	}
)

// routes is the whole API.
func (d *Desk) routes() http.Handler {
	huma.NewError = requestError
	huma.NewErrorWithContext = func(_ huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return requestError(status, msg, errs...)
	}
	config := huma.DefaultConfig("tokendesk", d.Version)
	config.Info.Description = "The desk's local API. Callers are known by the peer credentials of the Unix socket."
	config.DocsPath, config.SchemasPath = "", ""
	config.CreateHooks = nil
	mux := http.NewServeMux()
	a := humago.New(mux, config)

	get(a, d, everyone.inTenants(), "/v1/status", "status", "How the desk is", d.status)
	get(a, d, everyone, "/v1/doctor", "doctor", "What is broken, and its cure", d.doctor)
	get(a, d, everyone.inTenants(), "/v1/devices", "devices", "Inserted devices", d.devices)
	get(a, d, everyone.inTenants(), "/v1/tokens", "list", "The inventory, page by page", d.list)
	get(a, d, everyone.inTenants(), "/v1/tokens/{device}/{application}", "show", "One token", d.show)
	get(a, d, everyone.inTenants(), "/v1/tokens/{device}/{application}/history", "history", "What was done with a token, the newest first", d.history)
	get(a, d, everyone.inTenants(), "/v1/lifecycle", "lifecycle", "What may be done with a token, and what becomes of it", d.rules)
	get(a, d, everyone.inTenants(), "/v1/types", "types", "Types of tokens", d.types)
	get(a, d, everyone.inTenants(), "/v1/users/{user}", "user", "All tokens of a user, central ones included", d.showUser)

	post(a, d, officers.inTenants(), "/v1/identify", "identify", "Whose token codes are from; changes nothing", d.identify)
	mayWait(a, d, officers.inTenants(), "/v1/tokens/actions/{action}", "order", "Do something with one or several tokens: all or none", d.order)
	post(a, d, officers.inTenants(), "/v1/tokens/actions/{action}/preview", "preview", "What an order would do", d.preview)
	get(a, d, everyone.inTenants(), "/v1/approvals", "approvals", "What waits for a second officer, the oldest first", d.approvals)
	get(a, d, everyone.inTenants(), "/v1/approvals/{id}", "approval", "One of them", d.showApproval)
	post(a, d, approvers.inTenants(), "/v1/approvals/{id}/approve", "approve", "Have it done, if exactly that would still happen", d.approve)
	post(a, d, anyOf(provision.RoleApprover, provision.RoleOfficer).inTenants(), "/v1/approvals/{id}/reject", "reject", "Have it not done; an officer, what they have asked for themselves", d.reject)

	get(a, d, everyone.inTenants(), "/v1/tokens/{device}/{application}/handovers", "handovers", "Who was given a token, the newest first", d.handovers)
	get(a, d, everyone, "/v1/leavers", "leavers", "Who leaves, and whose tokens are to come back", d.leavers)
	post(a, d, officers, "/v1/leavers", "leaver-add", "Put somebody into the queue, or change what is said of them", d.addLeaver)
	post(a, d, officers, "/v1/leavers/import", "leaver-import", "Put several people into the queue: each is taken or not by itself", d.importLeavers)
	mayWait(a, d, officers, "/v1/leavers/{user}/settle", "leaver-settle", "Say what has become of a leaver's tokens, and have done what follows", d.settleLeaver)
	post(a, d, officers, "/v1/leavers/{user}/remove", "leaver-remove", "Take somebody out of the queue; their tokens stay as they are", d.removeLeaver)

	get(a, d, everyone, "/v1/outbox", "outbox", "Changes the central service has not confirmed, page by page", d.outbox)
	get(a, d, everyone, "/v1/outbox/{seq}", "outbox-show", "A change, and what it waits for", d.showChange)
	post(a, d, officers, "/v1/outbox/{seq}/retry", "retry", "Try a waiting or parked change again", d.retry)
	post(a, d, officers, "/v1/outbox/{seq}/park", "park", "Hold a change back until it is retried", d.park)
	mayWait(a, d, officers, "/v1/outbox/{seq}/discard", "discard", "Give a change up; for a cut-off that takes a second officer", d.discard)
	get(a, d, everyone, "/v1/notices", "notices", "Mail to tokens' holders that was not sent yet, page by page", d.notices)
	post(a, d, officers, "/v1/notices/{id}/retry", "notice-retry", "Try to send a notice again", d.retryNotice)
	post(a, d, officers, "/v1/notices/{id}/discard", "notice-discard", "Give a notice up", d.discardNotice)
	get(a, d, everyone, "/v1/drift", "drift", "The desk and every provider side by side, where they differ", d.drift)
	post(a, d, officers, "/v1/drift/plan", "drift-plan", "What a repair would do", d.repairPlan)
	post(a, d, officers, "/v1/drift/repair", "drift-repair", "Do what a plan has shown", d.repair)

	get(a, d, everyone, "/v1/vault", "vault", "How the vault is, and what waits while it is not open", d.vaultState)
	get(a, d, everyone, "/v1/vault/backups", "vault-backups", "Backups that were made", d.backups)
	secretly(a, d, administrators, "/v1/vault/init", "vault-init", "Make a vault, prove that it can be restored, and open it", []string{"PIN", "identity file of a recipient"}, d.vaultInit)
	secretly(a, d, officers, "/v1/vault/unlock", "vault-unlock", "Open the vault", []string{"PIN"}, d.vaultUnlock)
	secretly(a, d, administrators, "/v1/vault/change-pin", "vault-change-pin", "Replace the PIN; an empty one is none", []string{"PIN of now", "new PIN"}, d.vaultChangePIN)
	secretly(a, d, administrators, "/v1/vault/restore", "vault-restore", "Make a vault from a backup, and open it", []string{"PIN of the new vault", "identity file of a recipient"}, d.vaultRestore)
	secretly(a, d, administrators, "/v1/vault/move", "vault-move", "One step of a move to another board", []string{"PIN"}, d.vaultMove)
	post(a, d, officers, "/v1/vault/lock", "vault-lock", "Wipe the keys; work that is going on keeps it open, unless forced", d.vaultLock)
	post(a, d, administrators, "/v1/vault/rotate", "vault-rotate", "Write the vault anew under new keys", d.vaultRotate)
	post(a, d, officers, "/v1/vault/check", "vault-check", "Verify everything in the vault", d.vaultCheck)
	post(a, d, officers, "/v1/vault/backup", "vault-backup", "Make a backup now", d.vaultBackup)
	get(a, d, everyone, "/v1/audit", "audit", "The audit trail, page by page", d.acts)
	d.routeExport(a, auditors)

	get(a, d, papers.inTenants(), "/v1/tokens/{device}/{application}/receipt", "receipt", "The latest handover of a token on paper, signed", d.receipt)
	get(a, d, papers.inTenants(), "/v1/handovers/{id}/receipt", "handover-receipt", "A handover on paper, signed", d.handoverReceipt)
	get(a, d, papers.inTenants(), "/v1/tokens/{device}/{application}/label", "label", "What sticks to a token", d.label)
	d.routeReports(a, papers.inTenants())

	post(a, d, officers.inTenants(), "/v1/register", "register", "Add a token whose codes are sent to an address", d.register)
	secretly(a, d, officers.inTenants(), "/v1/import", "import", "Take fobs into the stock, which come with their seeds", []string{"comma-separated values"}, d.imports)

	stream(a, d, everyone.inTenants(), http.MethodGet, "/v1/devices/watch", "watch", "Devices as they come and go, one JSON object a line", api.KeyEvent{}, d.watch)
	work(a, d, officers.inTenants(), "/v1/enroll", "enroll", "Seal, program, verify, assign, push", d.enroll)
	work(a, d, officers.inTenants(), "/v1/tokens/{device}/{application}/reissue", "reissue", "Cut off, reseed or replace, verify, assign to another user, push", d.reissue)
	work(a, d, officers.inTenants(), "/v1/tokens/{device}/{application}/reseed", "reseed", "Replace the seed; the owner stays", d.reseed)
	work(a, d, officers.inTenants(), "/v1/tokens/{device}/{application}/wipe", "wipe", "Cut off, erase on the device, take out of the inventory", d.wipe)
	work(a, d, officers.inTenants(), "/v1/tokens/{device}/{application}/resolve", "resolve", "Settle interrupted work", d.resolve)
	work(a, d, officers.inTenants(), "/v1/tokens/{device}/{application}/test", "test", "Check one code; consumes it", d.test)
	work(a, d, officers.inTenants(), "/v1/tokens/{device}/{application}/resync", "resync", "Find the counter from consecutive codes", d.resync)
	d.routeResyncBatch(a, officers.inTenants())
	d.routePassword(a, officers)
	post(a, d, officers, "/v1/tokens/{device}/{application}/password/forget", "password-forget", "Forget the password or PIN of a device", d.forgetPassword)
	work(a, d, officers, "/v1/tokens/{device}/{application}/trace", "trace", "Record the traffic of an enroll with a published seed, on a token that nobody has", d.recordTrace)
	get(a, d, everyone, "/v1/oath/{device}", "oath", "What an OATH applet holds", d.listOATH)
	d.routePIV(a)
	capture(a, d, officers.inTenants(), "/v1/resync/capture", "resync-capture", "Find the counters of all inserted keys from codes that they type", d.resyncTray)
	capture(a, d, officers.inTenants(), "/v1/identify/capture", "identify-capture", "Say whose the inserted key is that types codes", d.identifyKey)
	post(a, d, officers.inTenants(), "/v1/captures/{capture}/end", "capture-end", "End a capture of one's own; what was done is kept, and answered there", d.endCapture)
	return known(mux)
}

func operation(method, path, id, summary string) huma.Operation {
	return huma.Operation{Method: method, Path: path, OperationID: id, Summary: summary, MaxBodyBytes: maxBody, RejectUnknownQueryParameters: true}
}

func get[In, Out any](a huma.API, d *Desk, who access, path, id, summary string, fn func(context.Context, *In) (Out, error)) {
	register(a, d, who, operation(http.MethodGet, path, id, summary), fn)
}

func post[In, Out any](a huma.API, d *Desk, who access, path, id, summary string, fn func(context.Context, *In) (Out, error)) {
	register(a, d, who, operation(http.MethodPost, path, id, summary), fn)
}

// mayWait is post for what may have to wait for a second officer. The answer has the status 202 then.
func mayWait[In, Out any](a huma.API, d *Desk, who access, path, id, summary string, fn func(context.Context, *In) (Out, error)) {
	op := operation(http.MethodPost, path, id, summary)
	schemas := a.OpenAPI().Components.Schemas
	op.Responses = map[string]*huma.Response{
		"202":     described("Nothing was done yet: it waits for a second officer", schemas.Schema(reflect.TypeFor[Out](), true, "")),
		"default": described("Error", schemas.Schema(reflect.TypeFor[api.Error](), true, "")),
	}
	register(a, d, who, op, fn)
}

func register[In, Out any](a huma.API, d *Desk, who access, op huma.Operation, fn func(context.Context, *In) (Out, error)) {
	op = d.guarded(op, who)
	huma.Register(a, op, func(ctx context.Context, in *In) (*answer[Out], error) {
		var out Out
		err := d.within(ctx, who, in)
		if err == nil {
			out, err = fn(ctx, in)
		}
		if failed := d.conclude(ctx, op, in, err); failed != nil {
			return nil, failed
		}
		status := http.StatusOK
		if waits(out) {
			status = http.StatusAccepted
		}
		return &answer[Out]{status, out}, nil
	})
}

// waits tells whether an answer says that nothing was done because that waits for a second officer.
func waits(out any) bool {
	switch out := out.(type) {
	case api.Outcomes:
		return out.Approval != nil
	case api.Changes:
		return out.Approval != nil
	case api.Settled:
		return out.Approval != nil
	}
	return false
}
