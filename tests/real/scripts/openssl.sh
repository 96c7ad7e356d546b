# openssl
echo data >d
openssl ecparam -genkey -name prime256v1 -noout -out k
openssl dgst -sha256 -sign k -out s d
openssl ec -in k -pubout -out p 2>/dev/null
openssl dgst -sha256 -verify p -signature s d
openssl enc -aes-256-cbc -pbkdf2 -k x -in d | openssl enc -d -aes-256-cbc -pbkdf2 -k x
openssl speed -seconds 1 ecdsap256 2>/dev/null | grep -c ecdsa
openssl rand 100 | wc -c
