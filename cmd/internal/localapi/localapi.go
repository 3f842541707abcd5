// Package localapi serves the desk's API on its Unix socket.
//
// Who calls is known from the socket's peer credentials, never from what the caller says. A browser
// cannot speak to it: requests with an Origin or Referer are refused. Errors are built here and nowhere
// else, so that none repeats what a caller has sent.
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
	"tokendesk/cmd/internal/keys"
	"tokendesk/provision"
	syncer "tokendesk/sync"
	"tokendesk/vault"
)

// Desk is what the API makes available. Connector is nil without a central service.
type Desk struct {
	Vault     *vault.Vault
	Runner    *provision.Runner
	Outbox    *syncer.Outbox
	Connector syncer.Connector
	Keys      *keys.Registry
	Doctor    func(context.Context) []api.Finding
	Version   string
	Since     time.Time
	Group     string // whose members may call, beside root and the daemon's own user; may be empty
	Log       *slog.Logger
}

type contextKey int

const peerKey contextKey = 0

// peer is the process at the other end of a connection.
type peer struct {
	uid     uint32
	problem string // why it may not call
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
			return context.WithValue(ctx, peerKey, d.identify(c))
		},
		DisableGeneralOptionsHandler: true, // it would answer before the guard
		ReadHeaderTimeout:            5 * time.Second,
		IdleTimeout:                  time.Minute,
		MaxHeaderBytes:               16 << 10,
		ErrorLog:                     slog.NewLogLogger(d.Log.Handler(), slog.LevelWarn),
	}
}

// identify reads the peer's credentials and decides whether it may call.
func (d *Desk) identify(c net.Conn) peer {
	p := peer{problem: "this connection has no peer credentials"}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return p
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return p
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if controlErr != nil || err != nil {
		return p
	}
	p = peer{uid: cred.Uid}
	if cred.Uid == 0 || int(cred.Uid) == unix.Geteuid() || d.inGroup(cred.Uid) {
		return p
	}
	p.problem = fmt.Sprintf("%s may not use this desk", p.name())
	if d.Group != "" {
		p.problem += fmt.Sprintf(": have an administrator run 'adduser %s %s', then log in again", p.name(), d.Group)
	}
	return p
}

func (d *Desk) inGroup(uid uint32) bool {
	if d.Group == "" {
		return false
	}
	g, err := user.LookupGroup(d.Group)
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
		switch {
		case p.problem != "":
			writeError(w, api.Errorf(api.Forbidden, "%s", p.problem))
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

// officer names who makes a request.
func officer(ctx context.Context) string {
	p, _ := ctx.Value(peerKey).(peer)
	return p.name()
}
