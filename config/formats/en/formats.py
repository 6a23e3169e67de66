"""How the admin writes moments: to the second, sortable, in UTC; and numbers: thousands apart."""

NUMBER_GROUPING = 3
DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i:s"
DATETIME_FORMAT = "Y-m-d H:i:s"
SHORT_DATETIME_FORMAT = DATETIME_FORMAT
