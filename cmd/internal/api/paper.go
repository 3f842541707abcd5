package api

// Document is something to be printed, whole and ready.
type Document struct {
	Kind     string `json:"kind" enum:"receipt,label"`
	Name     string `json:"name" doc:"What to call its file" example:"receipt-17-yk-12345678-otp2.html"`
	Token    string `json:"token"`
	Handover uint64 `json:"handover,omitempty" doc:"Which one a receipt is of"`
	Text     string `json:"text" doc:"HTML. Of a receipt every byte is signed"`
}
