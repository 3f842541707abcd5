// Package localapi serves the desk's API on its Unix socket.
//
// Who calls is known from the socket's peer credentials, never from what the caller says. A browser
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
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/keeper"
	"tokendesk/cmd/internal/keys"
	"tokendesk/provision"
	syncer "tokendesk/sync"
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
	Drift     *syncer.Drift
	Keys      *keys.Registry
	Doctor    func(context.Context) []api.Finding
	Version   string
	Since     time.Time
	Board     Board
	Group     string // whose members may call, beside root and the daemon's own user; may be empty
	Approvers string // the group whose members may approve; empty: nobody may
	Log       *slog.Logger
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

const peerKey contextKey = 0

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

// identify reads the peer's credentials. It looks nothing up: it runs while no other connection is accepted.
func identify(c net.Conn) (p peer) {
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return peer{}
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return peer{}
	}
	controlErr := raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = peer{cred.Uid, true}
		}
	})
	if controlErr != nil {
		return peer{}
	}
	return p
}

// refusal says why a peer may not call; empty if it may. It is asked at every request, so that whoever has left
// the group is out at once.
func (d *Desk) refusal(p peer) string {
	if !p.known {
		return "this connection has no peer credentials"
	}
	if p.uid == 0 || int(p.uid) == unix.Geteuid() || inGroup(p.uid, d.Group) {
		return ""
	}
	problem := fmt.Sprintf("%s may not use this desk", p.name())
	if d.Group != "" {
		problem += fmt.Sprintf(": have an administrator run 'adduser %s %s', then log in again", p.name(), d.Group)
	}
	return problem
}

func inGroup(uid uint32, group string) bool {
	if group == "" {
		return false
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return false
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, g.Gid)
}

// guard refuses callers before any route sees them.
func (d *Desk) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.VersionHeader, api.Version)
		w.Header().Set("Cache-Control", "no-store")
		p, _ := r.Context().Value(peerKey).(peer)
		theirs := r.Header.Get(api.VersionHeader)
		problem := d.refusal(p)
		switch {
		case problem != "":
			writeError(w, api.Errorf(api.Forbidden, "%s", problem))
		case r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "":
			writeError(w, api.Errorf(api.Forbidden, "browsers may not use this socket"))
		case theirs != "" && theirs != api.Version:
			writeError(w, api.Errorf(api.WrongVersion,
				"tokendesk and tokendeskd are of different versions (this tokendeskd is %s and speaks version %s of the API): install the same version of both and restart tokendeskd", d.Version, api.Version))
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// approver is who makes a request, if that is somebody who may approve, and otherwise nobody.
func (d *Desk) approver(ctx context.Context) audit.Officer {
	if p, _ := ctx.Value(peerKey).(peer); !p.known || !inGroup(p.uid, d.Approvers) {
		return audit.Officer{}
	}
	return officer(ctx)
}

// officer is who makes a request.
func officer(ctx context.Context) audit.Officer {
	p, _ := ctx.Value(peerKey).(peer)
	return audit.Officer{UID: int64(p.uid), Name: p.name()}
}
