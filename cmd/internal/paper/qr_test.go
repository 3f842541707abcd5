package paper

import (
	"image/color"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/boombuler/barcode/qr"
)

var strokes = regexp.MustCompile(`([Mmh])(-?[0-9]+)(?: ([0-9.]+))?`)

// drawn is which modules an SVG's path makes black.
func drawn(t *testing.T, svg string) map[[2]int]bool {
	t.Helper()
	_, path, _ := strings.Cut(svg, ` d="`)
	path, _, _ = strings.Cut(path, `"`)
	black := map[[2]int]bool{}
	x, y := 0, 0
	for _, s := range strokes.FindAllStringSubmatch(path, -1) {
		n, err := strconv.Atoi(s[2])
		if err != nil {
			t.Fatal(err)
		}
		switch s[1] {
		case "M":
			x = n
			if y, err = strconv.Atoi(strings.TrimSuffix(s[3], ".5")); err != nil {
				t.Fatal(err)
			}
		case "m":
			x += n
		case "h":
			for range n {
				black[[2]int{x, y}] = true
				x++
			}
		}
	}
	return black
}

// The picture is the code: module by module, in the middle of a white edge.
func TestPictureIsTheCode(t *testing.T) {
	for _, text := range []string{"yk-10000001/otp2", statementOf(t, render(t, testReceipt(t)))} {
		svg, err := code(text, "qr", `"what" it is`)
		if err != nil {
			t.Fatal(err)
		}
		symbol, err := qr.Encode(text, qr.M, qr.Unicode)
		if err != nil {
			t.Fatal(err)
		}
		size := symbol.Bounds().Dx()
		if edge := strconv.Itoa(size + 2*quiet); !strings.Contains(string(svg), `viewBox="0 0 `+edge+" "+edge+`"`) || !strings.Contains(string(svg), "&#34;what&#34;") {
			t.Errorf("%.200s", svg)
		}
		black, wrong := drawn(t, string(svg)), 0
		for y := -quiet; y < size+quiet; y++ {
			for x := -quiet; x < size+quiet; x++ {
				inside := x >= 0 && y >= 0 && x < size && y < size
				want := inside && symbol.At(x, y).(color.Gray16).Y == 0
				if black[[2]int{x + quiet, y + quiet}] != want {
					wrong++
				}
			}
		}
		if wrong > 0 || len(black) < size*size/4 {
			t.Errorf("%d of %d modules are wrong", wrong, size*size)
		}
	}
	if _, err := code(strings.Repeat("x", maxStatement+1), "qr", ""); err == nil {
		t.Errorf("%d bytes fit into a code", maxStatement+1)
	}
	if _, err := code(strings.Repeat("x", maxStatement), "qr", ""); err != nil {
		t.Error(err)
	}
}
