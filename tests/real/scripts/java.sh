# java
# exit: 9
java -Xmx200m -Xss512k /mnt/src/Real.java 2>&1
java -XX:+UseSerialGC -Xint /mnt/src/Real.java 2>&1
