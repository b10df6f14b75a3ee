// What lib/pq and pgx do with an ordinary connection string.
// Arguments: port, server name, CA file, certificate file, key file, password.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/jackc/pgx/v4"
	"github.com/lib/pq"
)

// In place of a DNS record.
type here struct{ address string }

func (d here) Dial(network, _ string) (net.Conn, error) { return net.Dial(network, d.address) }
func (d here) DialTimeout(network, _ string, limit time.Duration) (net.Conn, error) {
	return net.DialTimeout(network, d.address, limit)
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func main() {
	said := os.Args[1:]
	url := fmt.Sprintf("postgresql://postgres:%s@%s:%s/billing?sslmode=verify-full&sslrootcert=%s&sslcert=%s&sslkey=%s",
		said[5], said[1], said[0], said[2], said[3], said[4])
	way := here{"127.0.0.1:" + said[0]}

	connector, err := pq.NewConnector(url)
	must(err)
	connector.Dialer(way)
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(8)
	var n int
	for i := 0; i < 40; i++ {
		must(db.QueryRow("select $1::int", i).Scan(&n))
		if n != i {
			must(fmt.Errorf("answer %d to %d", n, i))
		}
	}
	must(db.Close())

	config, err := pgx.ParseConfig(url)
	must(err)
	config.DialFunc = func(_ context.Context, network, _ string) (net.Conn, error) { return way.Dial(network, "") }
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	connection, err := pgx.ConnectConfig(context.Background(), config)
	must(err)
	must(connection.QueryRow(context.Background(), "select $1::int", 7).Scan(&n))
	must(connection.Close(context.Background()))
	fmt.Println("done", n)
}
