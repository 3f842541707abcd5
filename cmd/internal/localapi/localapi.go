// Package localapi serves the desk's API on its Unix socket.
//
// Who calls is known from the socket's peer credentials, never from what the caller says. Each route declares the roles of
// which a caller needs one (routes.go), and nothing of a request is looked at before that was checked. A browser
// cannot speak to it: requests with an Origin or Referer are refused. Errors are built here and nowhere
// else, so that none repeats what a caller has sent. Secrets go from the socket into locked memory (frame.go). What
// was refused, or failed, is recorded in the audit trail here; what was done, where it was done.
package localapi

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keeper"
	"tokendesk/cmd/internal/keys"
	"tokendesk/cmd/internal/paper"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/sync/notice"
	"tokendesk/vault"
	"tokendesk/vault/audit"
	"tokendesk/vault/secret"
)

// Desk is what the API makes available. Connector is nil without a central service.
type Desk struct {
	Vault     *vault.Vault
	Keeper    *keeper.Keeper
	Runner    *provision.Runner
	Outbox    *syncer.Outbox
	Connector syncer.Connector
	Refresher *syncer.Refresher
	Notices   *notice.Queue
	Drift     *syncer.Drift
	Keys      *keys.Registry
	Doctor    func(context.Context) []api.Finding
	Version   string
	Since     time.Time
	Board     Board
	Roles     Roles
	Types     map[string]Naming // by code
	Tenants   map[string]Roles  // by name: who has a role for its tokens only
	Imprint   paper.Imprint     // what stands on paper
	Log       *slog.Logger

	captures  captures
	searching turnstile // who identifies a token
}

// Board is what a move to another board needs to know of TPMs.
type Board struct {
	// Parent tells the public part of this board's storage root key, for a vault that is to come here. Nil without a TPM.
	Parent func() (public []byte, err error)
	// Fingerprint names such a key.
	Fingerprint func(public []byte) (string, error)
	// Wrap encrypts a secret to such a key.
	Wrap func(public []byte, s secret.Secret) ([]byte, error)
}

type contextKey int

const (
	peerKey contextKey = iota
	rolesKey
)

// peer is the process at the other end of a connection.
type peer struct {
	uid   uint32
	known bool // the kernel has told who it is
}

func (p peer) name() string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(p.uid), 10)); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", p.uid)
}

// Server returns a server for the desk's Unix socket.
func (d *Desk) Server() *http.Server {
	return &http.Server{
		Handler: d.guard(d.routes()),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey, identify(c))
		},
		DisableGeneralOptionsHandler: true, // it would answer before the guard
		ReadHeaderTimeout:            5 * time.Second,
		IdleTimeout:                  time.Minute,
		MaxHeaderBytes:               16 << 10,
		ErrorLog:                     slog.NewLogLogger(d.Log.Handler(), slog.LevelWarn),
	}
}

// identify looks nothing up: it runs while no other connection is accepted.
func identify(c net.Conn) peer {
	uid, known := PeerUID(c)
	return peer{uid, known}
}

// PeerUID reads from the kernel which user is at the other end of a connection.
func PeerUID(c net.Conn) (uid uint32, known bool) {
	conn, ok := c.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid, known = cred.Uid, true
		}
	})
	return uid, known && err == nil
}

// guard refuses callers before any route sees them.
func (d *Desk) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.VersionHeader, api.Version)
		w.Header().Set("Cache-Control", "no-store")
		p, _ := r.Context().Value(peerKey).(peer)
		theirs := r.Header.Get(api.VersionHeader)
		roles := d.rolesOf(p)
		switch {
		case !p.known:
			writeError(w, api.Errorf(api.Forbidden, "this connection has no peer credentials"))
		case roles.none():
			writeError(w, api.Errorf(api.Forbidden, "%s may not use this desk: %s", p.name(), d.admission(p.name(), everyone)))
		case r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "":
			writeError(w, api.Errorf(api.Forbidden, "browsers may not use this socket"))
		case theirs != "" && theirs != api.Version:
			writeError(w, api.Errorf(api.WrongVersion,
				"tokendesk and tokendeskd are of different versions (this tokendeskd is %s and speaks version %s of the API): install the same version of both and restart tokendeskd", d.Version, api.Version))
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), rolesKey, roles)))
		}
	})
}

// officer is who makes a request.
func officer(ctx context.Context) audit.Officer {
	p, _ := ctx.Value(peerKey).(peer)
	return audit.Officer{UID: int64(p.uid), Name: p.name()}
}
