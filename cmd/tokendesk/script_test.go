package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/testscript"

	"tokendesk/cmd/internal/api"
	"tokendesk/cmd/internal/world"
	"tokendesk/device"
	"tokendesk/device/bussocket"
	"tokendesk/sync/synctest"
)

// patience bounds everything that a script waits for.
const patience = 20 * time.Second

// TestScripts plays testdata/*.txtar, each with a world of its own. Beside testscript's commands they know:
//
//	world [cards] [passphrase] [novault] [alone] [pair] [roles] [policy] [desk] [mail] SERIAL… nk-SERIAL…   start a desk with these emulated keys, YubiKeys and Nitrokeys (nk-SERIAL,model=3 is in a card reader); alone: no
//	                                         central service; pair: two servers; roles: the user games is an officer, news an
//	                                         approver, mail an auditor; policy: a user's last token, and the compromise of more
//	                                         than one token, take a second officer; desk: it has a name; mail: holders are told
//	                                         by a mail server; cards: each key is in a card reader, too, $READER1, $READER2 …
//	                                         $IDENTITY is the file of the recovery identity
//	tokendesk ARG…                           as an officer types it; "! tokendesk" expects a failure
//	as USER tokendesk ARG…                   as another user of the machine types it
//	code N                                   the exit code of the last tokendesk or tokendeskd
//	says TEXT                                what was printed has it, however it was wrapped
//	narrow                                   the last output fits into 80 columns, without colours and blanks at line ends
//	json                                     the last tokendesk printed JSON, line by line, with its version
//	touching SERIAL short|long tokendesk …   touch the key whenever a line begins with ●
//	tray … tokendesk …                       touch whatever key a line asks for; see cmdTray
//	program SERIAL SLOT SEED COUNTER         put a seed into a key behind the desk's back
//	pulling SERIAL tokendesk …               pull the key at the first ●
//	interrupting tokendesk …                 Ctrl-C at the first ●
//	crashing tokendesk …                     kill the daemon at the first ●
//	typed SERIAL short|long N NAME           touch N times into a window; the codes are $NAME1, $NAME2…
//	said NAME                                $NAME is what was printed last
//	emu ARG…                                 tokenemu
//	daemon start|stop|kill                   the daemon; "! daemon start" expects it to fail
//	configure OLD NEW                        change the configuration and start the daemon anew
//	slapd start|stop|gate|busy|pass|learn USER|forget USER
//	delivered                                wait until the outbox is empty
//	parked N                                 wait until N changes are parked
//	login USER CODE ok|refused               a real login at the directory, by ldapwhoami
//	seen SERIAL, gone PORT                   wait until the desk has identified a key, or missed one
//	soon, expired TOKEN                      $SOON is a moment that comes; wait until a token's time is over
//	settled TOKEN                            wait until nobody works on a token any more
//	tpm N                                    the machine gets TPM N from the daemon's next start on; it has 1 at first
//	given FILE tokendesk …                   with FILE as standard input and no terminal
//	auditkey                                 $AUDITKEY is the key that receipts are verified with
//	replaced FILE OLD NEW OUT                FILE with the last OLD replaced by NEW
//	statement FILE OUT                       what the QR code of the receipt FILE holds
//	nosecrets TOKEN FILE…                    the token's seed is in none of these files
//	mailserver stop|start|hang|answer        what it does; mailserver NAME on|off turns a switch of package mailtest; mailserver words
//	                                         DIR gives the daemon templates and starts it anew
//	address USER ADDRESS                     of a user in the directory; none if it is empty
//	inbox USER N                             wait until the user has got N mails, and print the last
//	noticed STATE                            wait until a notice is in that state; $NOTICE is its number
//	trail                                    see cmdTrail
//	carded SERIAL, uncarded SERIAL           wait until the desk sees a key's smart card, or misses it
//	pcscd stop|kill|start                    the daemon of the card readers
//	pinletter NAME                           $NAME is the PIN in the letter that was just printed, $NAME_WRONG is none
//	holding READER tokendesk …               while another program has the card
func TestScripts(t *testing.T) {
	p := testscript.Params{
		Dir:                "testdata",
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
			e.Setenv("TZ", "UTC")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Values[stageKey{}] = &stage{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"world":        cmdWorld,
			"tokendesk":    func(ts *testscript.TestScript, neg bool, args []string) { play(ts, neg, "tokendesk", args, nil) },
			"as":           cmdAs,
			"tokendeskd":   cmdTokendeskd,
			"code":         cmdCode,
			"says":         cmdSays,
			"json":         cmdJSON,
			"narrow":       cmdNarrow,
			"touching":     cmdTouching,
			"tray":         cmdTray,
			"program":      cmdProgram,
			"pulling":      cmdPulling,
			"interrupting": cmdInterrupting,
			"crashing":     cmdCrashing,
			"typed":        cmdTyped,
			"said":         cmdSaid,
			"fob":          cmdFob,
			"mailed":       cmdMailed,
			"emu":          func(ts *testscript.TestScript, neg bool, args []string) { play(ts, neg, "tokenemu", args, nil) },
			"daemon":       cmdDaemon,
			"configure":    cmdConfigure,
			"slapd":        cmdSlapd,
			"delivered": func(ts *testscript.TestScript, _ bool, _ []string) {
				outboxIs(ts, func(left, _ int) bool { return left == 0 })
			},
			"parked":     cmdParked,
			"levelled":   cmdLevelled,
			"synced":     cmdSynced,
			"lastchange": cmdLastChange,
			"login":      cmdLogin,
			"seen":       cmdSeen,
			"gone":       cmdGone,
			"soon": func(ts *testscript.TestScript, _ bool, _ []string) {
				ts.Setenv("SOON", time.Now().Add(3*time.Second).UTC().Format(time.RFC3339))
			},
			"expired":   cmdExpired,
			"settled":   cmdSettled,
			"tpm":       cmdTPM,
			"given":     cmdGiven,
			"auditkey":  cmdAuditKey,
			"replaced":  cmdReplaced,
			"statement": cmdStatement,
			"nosecrets": cmdNoSecrets,
			"trail":     cmdTrail,

			"mailserver": cmdMailServer,
			"address":    func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(on(ts).Address(args[0], args[1])) },
			"inbox":      cmdInbox,
			"noticed":    cmdNoticed,
		},
	}
	maps.Copy(p.Cmds, cardCommands)
	testscript.Run(t, p)
}

type stageKey struct{}

// stage is what a script has around it.
type stage struct {
	*world.World
	gate *synctest.Gate
	code int
	tpms map[string]string // devices by number
	tpm  string            // the device in use
}

func on(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

func cmdWorld(ts *testscript.TestScript, _ bool, args []string) {
	backups := ts.MkAbs("backups")
	ts.Check(os.Mkdir(backups, 0o700))
	o := world.Options{Bin: bin, Config: fmt.Sprintf("\n[backup]\ndir = %q\n", backups)}
	cards := false
	for _, arg := range args {
		switch arg {
		case "passphrase":
			o.Passphrase = true
		case "novault":
			o.NoVault = true
		case "alone":
			o.NoCentral = true
		case "pair":
			o.Pair = true
		case "roles":
			o.Config += "\n[roles]\nofficers = \"games\"\napprovers = \"news\"\nauditors = \"mail\"\n"
		case "mail":
			o.Mail = true
		case "cards":
			cards = true
		case "desk":
			o.Config += "\n[desk]\nname = \"Example Org\"\nreturn_to = \"Example Org, Main Street 1, 12345 Exampletown\"\n"
		case "policy":
			o.Config += "\n[policy]\napprove_last_token = true\napprove_compromise_over = 1\n"
		default:
			if nitrokey, ok := strings.CutPrefix(arg, "nk-"); ok {
				o.Nitrokeys = append(o.Nitrokeys, "serial="+nitrokey)
			} else {
				o.Keys = append(o.Keys, "serial="+arg)
			}
		}
	}
	if cards {
		o.Cards = len(o.Keys)
	}
	w, err := world.Start(o)
	ts.Check(err)
	s := on(ts)
	s.World = w
	ts.Defer(func() {
		if s.gate != nil {
			s.gate.Close()
		}
		if logs := w.Logs(); strings.Contains(logs, "DATA RACE") || strings.Contains(logs, "panic:") {
			ts.Logf("%s", logs)
			defer ts.Fatalf("a program's log tells of a fault")
		}
		ts.Check(w.Stop())
	})
	ts.Setenv(api.SocketVariable, w.Socket)
	ts.Setenv("TOKENEMU_SOCKET", w.EmulatorSocket)
	ts.Setenv("WORLD", w.Dir)
	ts.Setenv("CONFIG", w.Config)
	ts.Setenv("IDENTITY", w.Identity)
	readersEnv(ts, w.Readers)
	awaitKeys(ts)
}

// awaitKeys waits until the desk has identified every inserted key. Of keys that say they are the same one is waited for.
func awaitKeys(ts *testscript.TestScript) {
	s := on(ts)
	keys, err := s.Emulator.List(context.Background())
	ts.Check(err)
	var present []device.ID
	for _, k := range keys {
		if k.Present {
			present = append(present, k.Device)
		}
	}
	if len(present) > 0 {
		ts.Check(s.AwaitDevices(context.Background(), present...))
	}
}

// play runs a program and has do see every line that it prints, when it prints it.
func play(ts *testscript.TestScript, neg bool, program string, args []string, do func(line string, p *os.Process)) {
	playAs(ts, neg, nil, program, args, do)
}

// playAs is play as another user, for whom prepare makes the command ready.
func playAs(ts *testscript.TestScript, neg bool, prepare func(*exec.Cmd), program string, args []string, do func(line string, p *os.Process)) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), args...)
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"PATH", "TZ", "HOME", "TMPDIR", "GORACE", api.SocketVariable, "TOKENEMU_SOCKET"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	if prepare != nil {
		prepare(cmd)
	}
	cmd.Stderr = ts.Stderr()
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(ts.Stdout(), lines.Text())
		if do != nil {
			do(lines.Text(), cmd.Process)
		}
	}
	err = cmd.Wait()
	on(ts).code = cmd.ProcessState.ExitCode()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		ts.Fatalf("%s %q: %v, %v", program, args, err, ctx.Err())
	}
	if neg != (err != nil) {
		ts.Fatalf("%s %q ended with %d", program, args, on(ts).code)
	}
}

// atTouch plays tokendesk and acts once or, if always says so, each time it asks for a touch.
func atTouch(ts *testscript.TestScript, neg bool, args []string, always bool, act func(*os.Process) error) {
	if len(args) == 0 || args[0] != "tokendesk" {
		ts.Fatalf("expected tokendesk and its arguments, not %q", args)
	}
	acted := 0
	play(ts, neg, "tokendesk", args[1:], func(line string, p *os.Process) {
		if strings.HasPrefix(line, "●") && (always || acted == 0) {
			acted++
			ts.Check(act(p))
		}
	})
	if acted == 0 && !neg {
		ts.Fatalf("tokendesk asked for no touch")
	}
}

func isLong(ts *testscript.TestScript, word string) bool {
	if word != "short" && word != "long" {
		ts.Fatalf("a touch is short or long, not %q", word)
	}
	return word == "long"
}

func cmdTouching(ts *testscript.TestScript, neg bool, args []string) {
	long := isLong(ts, args[1])
	atTouch(ts, neg, args[2:], true, func(*os.Process) error { return touchUntilFelt(ts, args[0], long) })
}

// touchUntilFelt touches a key, again and again if nothing comes of it: a smart card may be about to ask for it only.
func touchUntilFelt(ts *testscript.TestScript, key string, long bool) (err error) {
	await(ts, "until the key has felt a touch", func(ctx context.Context) bool {
		var felt []bussocket.Touch
		felt, err = on(ts).Emulator.Touch(ctx, key, long, 1)
		return err != nil || felt[0].To != bussocket.ToNobody
	})
	return err
}

// cmdSaid sets a variable to the last output.
func cmdSaid(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

func cmdPulling(ts *testscript.TestScript, neg bool, args []string) {
	atTouch(ts, neg, args[1:], false, func(*os.Process) error { return on(ts).Emulator.Remove(context.Background(), args[0]) })
}

func cmdInterrupting(ts *testscript.TestScript, neg bool, args []string) {
	atTouch(ts, neg, args, false, func(p *os.Process) error { return p.Signal(syscall.SIGINT) })
}

func cmdCrashing(ts *testscript.TestScript, neg bool, args []string) {
	atTouch(ts, neg, args, false, func(*os.Process) error { on(ts).KillDaemon(); return nil })
}

func cmdTyped(ts *testscript.TestScript, _ bool, args []string) {
	serial, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	codes, err := on(ts).Touch(context.Background(), device.Serial(serial), isLong(ts, args[1]), n)
	ts.Check(err)
	if len(codes) != n {
		ts.Fatalf("the key typed %q", codes)
	}
	for i, code := range codes {
		ts.Setenv(args[3]+strconv.Itoa(i+1), code)
	}
}

// cmdFob sets NAME1, NAME2 … to what a fob with a seed shows at a counter and after it: fob SEED COUNTER N NAME. They are
// oathtool's.
func cmdFob(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	codes, err := exec.Command("oathtool", "--hotp", "--counter="+args[1], "--window="+strconv.Itoa(n-1), args[0]).Output()
	ts.Check(err)
	for i, code := range strings.Fields(string(codes)) {
		ts.Setenv(args[3]+strconv.Itoa(i+1), code)
	}
}

// cmdMailed sets MAIL to the token of a user whose codes are sent by mail.
func cmdMailed(ts *testscript.TestScript, _ bool, args []string) {
	var found api.Tokens
	ts.Check(on(ts).Client.Get(context.Background(), "/v1/tokens", url.Values{"owner": {args[0]}, "type": {"mail"}}, &found))
	if len(found.Tokens) != 1 {
		ts.Fatalf("%s has %+v", args[0], found.Tokens)
	}
	ts.Setenv("MAIL", found.Tokens[0].ID)
}

func cmdTokendeskd(ts *testscript.TestScript, neg bool, args []string) {
	play(ts, neg, "tokendeskd", args, nil)
}

func cmdCode(ts *testscript.TestScript, _ bool, args []string) {
	if got := strconv.Itoa(on(ts).code); got != args[0] {
		ts.Fatalf("exit code %s, not %s", got, args[0])
	}
}

func cmdSays(ts *testscript.TestScript, neg bool, args []string) {
	printed := strings.Join(strings.Fields(ts.ReadFile("stdout")), " ")
	if strings.Contains(printed, args[0]) == neg {
		ts.Fatalf("%q is not expected so in:\n%s", args[0], printed)
	}
}

func cmdJSON(ts *testscript.TestScript, _ bool, _ []string) {
	lines := 0
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		lines++
		var v struct {
			Version string `json:"api_version"`
		}
		if err := json.Unmarshal([]byte(line), &v); err != nil || v.Version != api.Version {
			ts.Fatalf("not JSON of version %s: %v: %s", api.Version, err, line)
		}
	}
	if lines == 0 {
		ts.Fatalf("nothing was printed")
	}
}

func cmdNarrow(ts *testscript.TestScript, _ bool, _ []string) {
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		line = strings.TrimSuffix(line, "\n")
		if utf8.RuneCountInString(line) > narrow || strings.TrimRight(line, " ") != line || strings.Contains(line, "\x1b") {
			ts.Fatalf("not a plain line of %d columns: %q", narrow, line)
		}
	}
}
