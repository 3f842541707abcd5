package pcsc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tokendesk/device"
)

// cardDaemon is GnuPG's: it holds a card for as long as it runs, and is started by whatever asks GnuPG for a card.
const cardDaemon = "scdaemon"

// holders names the other processes that use PC/SC, as far as this user may see them: the card daemon of GnuPG by its
// name, all others by the library that they have loaded. pcscd does not tell which of them has a card.
func holders(proc string) []string {
	folders, _ := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	var who []string
	for _, folder := range folders {
		number := filepath.Base(folder)
		text, _ := os.ReadFile(filepath.Join(folder, "comm"))
		name := strings.TrimSpace(string(text))
		if number == strconv.Itoa(os.Getpid()) || name == "pcscd" {
			continue
		}
		if name != cardDaemon {
			maps, _ := os.ReadFile(filepath.Join(folder, "maps"))
			if !bytes.Contains(maps, []byte("/libpcsclite.so")) {
				continue
			}
		}
		who = append(who, fmt.Sprintf("%s (process %s)", name, number))
	}
	slices.Sort(who)
	return who
}

// busy says who may hold a card.
func busy(who []string) *device.CureError {
	if i := slices.IndexFunc(who, func(s string) bool { return strings.HasPrefix(s, cardDaemon+" ") }); i >= 0 {
		return &device.CureError{
			Err:  fmt.Errorf("%w: %s of GnuPG has the card", device.ErrBusy, who[i]),
			Cure: "gpgconf --kill scdaemon, as the user who runs it, and try again",
		}
	}
	if len(who) > 0 {
		return &device.CureError{
			Err:  fmt.Errorf("%w; these use smart cards: %s", device.ErrBusy, strings.Join(who, ", ")),
			Cure: "wait until it has finished, or end it, and try again",
		}
	}
	return &device.CureError{
		Err:  fmt.Errorf("%w that this user may not see", device.ErrBusy),
		Cure: "end the program that uses smart cards (as root: fuser -v /run/pcscd/pcscd.comm names some), and try again",
	}
}
