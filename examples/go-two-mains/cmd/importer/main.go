package main

import (
	"fmt"

	"example.com/shop/internal/greeting"
)

func main() { fmt.Println(greeting.For("shop's importer")) }
