ipvsadm --set 800 100 200
ipvsadm -A -t 192.0.2.1:80 -s wlc
ipvsadm -a -t 192.0.2.1:80 -r 10.1.0.11:8080 -m -w 0
ipvsadm -a -t 192.0.2.1:80 -r 10.1.0.12:8080 -m -w 3 -x 100 -y 50
ipvsadm -A -t 192.0.2.2:443 -s sh -b sh-port,sh-fallback -p 360 -M 255.255.255.0
ipvsadm -a -t 192.0.2.2:443 -r 10.1.0.11:443 -g
ipvsadm -a -t 192.0.2.2:443 -r 10.1.0.12:443 -i
ipvsadm -a -t 192.0.2.2:443 -r 10.1.0.13:443 -i --tun-type gue --tun-port 6080 --tun-remcsum
ipvsadm -a -t 192.0.2.2:443 -r 10.1.0.14:443 -i --tun-type gre --tun-csum
ipvsadm -a -t 192.0.2.2:443 -r [2001:db8:1::15]:443 -i
ipvsadm -A -u 192.0.2.1:53 -s rr -o
ipvsadm -a -u 192.0.2.1:53 -r 10.1.0.11:53 -g
ipvsadm -A -u 192.0.2.1:5060 -s rr -p 60 --pe sip
ipvsadm -a -u 192.0.2.1:5060 -r 10.1.0.11:5060 -g
ipvsadm -A --sctp-service 192.0.2.1:9000 -s mh -b mh-fallback
ipvsadm -A -t [2001:db8::1]:80 -s rr -p 90 -M 64
ipvsadm -a -t [2001:db8::1]:80 -r [2001:db8:1::11]:8080 -m -w 2147483647
ipvsadm -a -t [2001:db8::1]:80 -r 10.1.0.12:80 -i
ipvsadm -A -f 7 -s wrr
ipvsadm -a -f 7 -r 10.1.0.11 -g
ipvsadm -A -f 4294967295 -6 -s fo -p 60
