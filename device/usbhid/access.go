package usbhid

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tokendesk/device"
	"tokendesk/udev"
)

// reach reports what keeps this process from the key's device node, if anything: it is gone, or not permitted.
func (b *bus) reach(k key) *device.CureError {
	node := b.tree.nodePath(k)
	err := tryNode(node)
	switch {
	case err == nil:
		return nil
	case isGone(err):
		return gone()
	case errors.Is(err, fs.ErrPermission):
		return permission(factsAbout(node))
	}
	return &device.CureError{Err: err, Cure: "pull the key and insert it again"}
}

// tryNode opens a device node and closes it. Only this is the whole truth about access: services can be denied
// devices that the mode grants.
func tryNode(node string) error {
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

// isGone tells the errors of opening a node whose device is pulled, or being removed.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO)
}

func gone() *device.CureError {
	return &device.CureError{Err: device.ErrGone, Cure: "insert it again"}
}

// unusable is what Watch has told as the key's problem.
func unusable(info device.Info) *device.CureError {
	return &device.CureError{Err: errors.New(info.Problem), Cure: info.Cure}
}

// facts are what decides about access to a device node.
type facts struct {
	node        string
	user        string // of this process
	groupExists bool
	given       bool // the rules have given the node to the group
	memberNow   bool // this process is in the group
	member      bool // the user is, according to the machine's user database
}

func factsAbout(node string) facts {
	f := facts{node: node, user: fmt.Sprintf("number %d", unix.Geteuid())}
	group, err := user.LookupGroup(udev.Group)
	f.groupExists = err == nil
	if u, err := user.LookupId(strconv.Itoa(unix.Geteuid())); err == nil {
		f.user = u.Username
		ids, _ := u.GroupIds()
		f.member = f.groupExists && slices.Contains(ids, group.Gid)
	}
	if !f.groupExists {
		return f
	}
	mine, _ := unix.Getgroups()
	f.memberNow = slices.ContainsFunc(append(mine, unix.Getegid()), func(id int) bool { return strconv.Itoa(id) == group.Gid })
	var stat unix.Stat_t
	if unix.Stat(node, &stat) == nil {
		f.given = strconv.FormatUint(uint64(stat.Gid), 10) == group.Gid && stat.Mode&0o060 == 0o060
	}
	return f
}

// permission says which of the things that access takes is missing.
func permission(f facts) *device.CureError {
	why, cure := "", ""
	switch {
	case !f.groupExists:
		why = fmt.Sprintf("%s should belong to the group %s, which does not exist", f.node, udev.Group)
		cure = fmt.Sprintf("as root: addgroup --system %s; udevadm control --reload; then insert the key again", udev.Group)
	case !f.given:
		why = fmt.Sprintf("%s does not belong to the group %s: the udev rules are not installed, or were not applied to it", f.node, udev.Group)
		cure = fmt.Sprintf("as root: install %s in /etc/udev/rules.d; udevadm control --reload; then insert the key again", udev.RulesFile)
	case !f.memberNow && f.member:
		why = fmt.Sprintf("%s belongs to the group %s, and this program was started before %s joined it", f.node, udev.Group, f.user)
		cure = "log in again, or restart the service"
	case !f.memberNow:
		why = fmt.Sprintf("%s belongs to the group %s, and %s is not in it", f.node, udev.Group, f.user)
		cure = fmt.Sprintf("as root: usermod -aG %s %s; then log in again, or restart the service", udev.Group, f.user)
	default:
		why = fmt.Sprintf("%s is open to the group %s, and yet it is denied to this process", f.node, udev.Group)
		cure = "let the service have it (systemd: DeviceAllow=char-usb_device rw)"
	}
	return &device.CureError{Err: fmt.Errorf("%w: %s", device.ErrPermission, why), Cure: cure}
}

// busy says who may hold a key, as far as this user may see it: several programs can have the node open, and
// only one of them the keyboard.
func (b *bus) busy(k key) *device.CureError {
	node := b.tree.nodePath(k)
	who := b.tree.holders(node)
	if len(who) == 0 {
		return &device.CureError{
			Err:  fmt.Errorf("%w that this user may not see", device.ErrBusy),
			Cure: fmt.Sprintf("as root: fuser -v %s tells which; end it (but not %s: they use the smart card only)", node, strings.Join(cardPrograms, " or ")),
		}
	}
	list := strings.Join(who, ", ")
	return &device.CureError{Err: fmt.Errorf("%w: %s (have it open)", device.ErrBusy, list), Cure: "end " + strings.Join(who, " or ") + ", and try again"}
}

// cardPrograms have the node of a key with CCID open all the time, for an interface that is not the keyboard.
var cardPrograms = []string{"pcscd", "scdaemon"}

// holders names the other processes that have node open and may want the keyboard.
func (t tree) holders(node string) []string {
	links, _ := filepath.Glob(filepath.Join(t.proc, "[0-9]*/fd/*"))
	var who []string
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != node {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		number := filepath.Base(process)
		text, _ := os.ReadFile(filepath.Join(process, "comm"))
		name := strings.TrimSpace(string(text))
		if number != strconv.Itoa(os.Getpid()) && !slices.Contains(cardPrograms, name) {
			who = append(who, fmt.Sprintf("%s (process %s)", name, number))
		}
	}
	slices.Sort(who)
	return slices.Compact(who)
}
