package synctest

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Link is one of the three lines of a Network.
type Link int

// Links.
const (
	ToFirst  Link = iota // from this process to the first provider
	ToSecond             // and to the second one
	Between              // the two providers
)

// Network gives each of two providers a network namespace of its own, joined to each other and to this process's by three
// lines (veth pairs) that can be cut. It needs root and iproute2.
//
// Its names tell which process it belongs to, so that what a killed one has left behind is removed by the next.
type Network struct {
	name   string
	base   net.IP // 10.a.b.0; each line has four addresses of it
	spaces [2]string
}

const (
	networkPrefix = "tokendesk-"
	plainPort     = 389
	securePort    = 636
	// What the ends of lines are called inside the namespaces.
	toDesk, toPeer = "desk", "peer"
)

var networks atomic.Int64 // of this process so far

// StartNetwork builds one with all lines up.
func StartNetwork() (n *Network, err error) {
	if err := clearNetworks(); err != nil {
		return nil, err
	}
	self, err := startOf(os.Getpid())
	if err != nil {
		return nil, err
	}
	n = &Network{name: fmt.Sprintf("%s%d-%s-%d", networkPrefix, os.Getpid(), self, networks.Add(1))}
	if n.base, err = freeRange(); err != nil {
		return nil, err
	}
	for i := range n.spaces {
		n.spaces[i] = fmt.Sprintf("%s-%d", n.name, i+1)
	}
	if err := n.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot build a network (as root, with the Debian package iproute2): %w", err), n.Close())
	}
	return n, nil
}

func (n *Network) build() error {
	for i, space := range n.spaces {
		line := fmt.Sprintf("td%x%d", n.base[1:3], i+1) // at most 15 bytes (IFNAMSIZ)
		steps := []string{
			"netns add " + space,
			fmt.Sprintf("link add %s type veth peer name %s netns %s", line, toDesk, space),
			fmt.Sprintf("addr add %s/30 dev %s", n.address(4*i+1), line),
			"link set " + line + " up",
		}
		inside := []string{
			"link set lo up",
			fmt.Sprintf("addr add %s/30 dev %s", n.address(4*i+2), toDesk),
			"link set " + toDesk + " up",
		}
		for _, err := range []error{ip(steps...), in(space, inside...)} {
			if err != nil {
				return err
			}
		}
	}
	if err := in(n.spaces[0], fmt.Sprintf("link add %s type veth peer name %s netns %s", toPeer, toPeer, n.spaces[1])); err != nil {
		return err
	}
	for i, space := range n.spaces {
		if err := in(space, fmt.Sprintf("addr add %s/30 dev %s", n.address(9+i), toPeer), "link set "+toPeer+" up"); err != nil {
			return err
		}
	}
	return nil
}

// Down cuts a line: packets vanish, and connections hang. The far end is taken down; where the near one was, its route would
// go, and what is sent would be refused at once, or take the way to the Internet.
func (n *Network) Down(l Link) error { return n.set(l, "down") }

// Up ends Down.
func (n *Network) Up(l Link) error { return n.set(l, "up") }

func (n *Network) set(l Link, state string) error {
	if l == Between {
		return in(n.spaces[1], "link set "+toPeer+" "+state)
	}
	return in(n.spaces[l], "link set "+toDesk+" "+state)
}

// Close removes the namespaces, and the lines with them. What runs in them must have ended.
func (n *Network) Close() error {
	var err error
	for _, space := range n.spaces {
		err = errors.Join(err, removeSpace(space))
	}
	return err
}

// site is where a provider runs.
func (n *Network) site(provider int) *site {
	return &site{
		address: n.address(4*provider + 2),
		peer:    net.JoinHostPort(n.address(10-provider).String(), strconv.Itoa(plainPort)),
		listen:  fmt.Sprintf("ldap://0.0.0.0:%d ldaps://0.0.0.0:%d", plainPort, securePort),
		command: func(name string, args ...string) *exec.Cmd {
			return exec.Command("ip", append([]string{"netns", "exec", n.spaces[provider], name}, args...)...)
		},
	}
}

func (n *Network) address(last int) net.IP {
	return net.IPv4(n.base[0], n.base[1], n.base[2], byte(last))
}

// StartPairIn is StartPair with each server in its namespace: at its link address, under a certificate for that, and reading
// from the other one over the line Between. The network must stay until the pair was stopped.
func StartPairIn(n *Network, dir string) (*Pair, error) {
	return startPair(&Pair{network: n}, dir)
}

// freeRange finds 256 addresses that no interface here has.
func freeRange() (net.IP, error) {
	taken, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	for range 100 {
		chosen := &net.IPNet{IP: net.IPv4(10, byte(1+rand.N(254)), byte(rand.N(256)), 0).To4(), Mask: net.CIDRMask(24, 32)}
		free := true
		for _, a := range taken {
			other, ok := a.(*net.IPNet)
			free = free && (!ok || !chosen.Contains(other.IP) && !other.Contains(chosen.IP))
		}
		if free {
			return chosen.IP, nil
		}
	}
	return nil, errors.New("no private addresses (10.0.0.0/8) are free")
}

// clearNetworks removes what killed processes have left behind: namespaces, and servers in them.
func clearNetworks() error {
	spaces, err := filepath.Glob("/run/netns/" + networkPrefix + "*")
	if err != nil {
		return err
	}
	for _, path := range spaces {
		space := filepath.Base(path)
		parts := strings.Split(strings.TrimPrefix(space, networkPrefix), "-")
		pid, err := strconv.Atoi(parts[0])
		if err != nil || len(parts) != 4 {
			continue // not one of ours
		}
		if start, err := startOf(pid); err == nil && start == parts[1] {
			continue
		}
		if err := abandon(space); err != nil {
			return err
		}
	}
	return nil
}

// abandon ends what runs in a namespace, and removes it.
func abandon(space string) error {
	out, err := exec.Command("ip", "netns", "pids", space).Output()
	if err != nil && exists(space) {
		return fmt.Errorf("cannot see what runs in the network namespace %s: %w", space, err)
	}
	for _, word := range strings.Fields(string(out)) {
		if pid, err := strconv.Atoi(word); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	return removeSpace(space)
}

// removeSpace is content with one that is gone.
func removeSpace(space string) error {
	if err := ip("netns del " + space); err != nil && exists(space) {
		return err
	}
	return nil
}

func exists(space string) bool {
	_, err := os.Stat("/run/netns/" + space)
	return !errors.Is(err, fs.ErrNotExist)
}

// startOf is when a process started, in clock ticks since boot (proc_pid_stat(5), field 22): process ids come again.
func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return "", fmt.Errorf("/proc/%d/stat is not as proc_pid_stat(5) has it", pid)
	}
	return fields[19], nil
}

func ip(steps ...string) error { return batch([]string{"-batch", "-"}, steps) }

func in(space string, steps ...string) error {
	return batch([]string{"-n", space, "-batch", "-"}, steps)
}

func batch(args, steps []string) error {
	cmd := exec.Command("ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(steps, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args[:len(args)-2], " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
