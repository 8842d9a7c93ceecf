// The routes on Go's net/http: go run main.go ADDRESS
package main

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	http.HandleFunc("/ping", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "pong")
	})
	http.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(170 * time.Millisecond)
		io.WriteString(w, "slept")
	})
	http.HandleFunc("/bytes", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(64<<10))
		w.Write(bytes.Repeat([]byte("x"), 64<<10))
	})
	http.HandleFunc("/length", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "the body did not come", http.StatusBadRequest)
			return
		}
		io.WriteString(w, strconv.Itoa(len(body)))
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
