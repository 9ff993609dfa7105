"""Wait for `seconds`, then print the message if there is one."""

import json
import sys
import time

parameters = json.load(sys.stdin)
time.sleep(parameters["seconds"])
if parameters.get("message"):
    print(parameters["message"])
