package localapi

import (
	"context"
	"net/http"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"tokendesk/cmd/internal/api"
	"tokendesk/device"
	"tokendesk/provision"
)

// captures are those going on that an officer can end in order, so that what was done by then is answered. Its zero value is
// ready.
type captures struct {
	mu    sync.Mutex
	last  uint64
	going map[string]*capturing
}

// capturing is one of them.
type capturing struct {
	name string
	uid  int64
	end  context.CancelCauseFunc
}

// begin begins one of an officer's captures; its context ends when it is asked to.
func (c *captures) begin(ctx context.Context) (_ context.Context, name string, over func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, end := context.WithCancelCause(ctx)
	if c.going == nil {
		c.going = map[string]*capturing{}
	}
	c.last++
	g := &capturing{strconv.FormatUint(c.last, 10), officer(ctx).UID, end}
	c.going[g.name] = g
	return ctx, g.name, func() {
		end(nil)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.going, g.name)
	}
}

// end ends an officer's own capture.
func (c *captures) end(ctx context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.going[name]
	if g == nil || g.uid != officer(ctx).UID {
		return api.Errorf(api.NotFound, "no such capture of yours is going on")
	}
	g.end(provision.ErrEnough)
	return nil
}

// capturePath names a capture.
type capturePath struct {
	Name string `path:"capture" pattern:"^[0-9]{1,20}$" doc:"As its first line names it"`
}

func (d *Desk) endCapture(ctx context.Context, in *capturePath) (struct{}, error) {
	return struct{}{}, d.captures.end(ctx, in.Name)
}

// capture registers an operation that listens to several inserted keys, and answers line by line.
func capture[In any](a huma.API, d *Desk, who access, path, id, summary string, fn func(context.Context, *In, func(api.CaptureEvent)) (api.CaptureEvent, error)) {
	stream(a, d, who, http.MethodPost, path, id, summary, api.CaptureEvent{}, func(ctx context.Context, in *In, write func(any) error) error {
		ctx, end, err := d.Keeper.Works.Begin(ctx, describe(id, in)+" by "+officer(ctx).Name)
		if err != nil {
			return err
		}
		defer end()
		last, err := fn(ctx, in, func(e api.CaptureEvent) { write(e) })
		if err != nil {
			return err
		}
		return write(last)
	})
}

// capturedKey tells what became of a key that is listened to.
func capturedKey(p provision.Progress) api.CaptureEvent {
	k := api.CapturedKey{Device: string(p.Device), State: string(p.Kind), Text: p.Text}
	if p.Kind == provision.Note {
		k.State = "no code"
	}
	if p.Kind != provision.Away {
		k.Text = ""
	}
	return api.CaptureEvent{Key: &k}
}

// usable are the inserted keys that can be opened.
func (d *Desk) usable() (all []device.ID) {
	for _, k := range d.Keys.List() {
		if k.ID != "" && k.Problem == "" && k.HID() && device.SlotToken(k.ID, 1).Programmable() {
			all = append(all, k.ID)
		}
	}
	return all
}
