"""Facts written by hand for this project: Chinese element names and Chinese names of capitals.

Capitals listed here are those whose Chinese name the CLDR time-zone cities do not give.
"""

ELEMENTS_CN = (
    "氢氦锂铍硼碳氮氧氟氖钠镁铝硅磷硫氯氩钾钙钪钛钒铬锰铁钴镍铜锌镓锗砷硒溴氪铷锶钇锆铌钼锝钌铑钯银镉铟锡锑碲碘氙"
    "铯钡镧铈镨钕钷钐铕钆铽镝钬铒铥镱镥铪钽钨铼锇铱铂金汞铊铅铋钋砹氡钫镭锕钍镤铀镎钚镅锔锫锎锿镄钔锘铹")
ELEMENTS_TW = (
    "氫氦鋰鈹硼碳氮氧氟氖鈉鎂鋁矽磷硫氯氬鉀鈣鈧鈦釩鉻錳鐵鈷鎳銅鋅鎵鍺砷硒溴氪銣鍶釔鋯鈮鉬鎝釕銠鈀銀鎘銦錫銻碲碘氙"
    "銫鋇鑭鈰鐠釹鉕釤銪釓鋱鏑鈥鉺銩鐿鎦鉿鉭鎢錸鋨銥鉑金汞鉈鉛鉍釙砈氡鍅鐳錒釷鏷鈾錼鈽鋂鋦鉳鉲鑀鐨鍆鍩鐒")

CAPITAL_NAMES_ZH = {
    "Beijing": ("北京", "北京"), "Washington D.C.": ("華盛頓", "华盛顿"), "Ottawa": ("渥太華", "渥太华"),
    "Canberra": ("坎培拉", "堪培拉"), "Wellington": ("威靈頓", "惠灵顿"), "New Delhi": ("新德里", "新德里"),
    "Brasília": ("巴西利亞", "巴西利亚"), "Pretoria": ("普利托利亞", "比勒陀利亚"), "Ankara": ("安卡拉", "安卡拉"),
    "Bern": ("伯恩", "伯尔尼"), "Hanoi": ("河內", "河内"), "Islamabad": ("伊斯蘭馬巴德", "伊斯兰堡"),
    "Abu Dhabi": ("阿布達比", "阿布扎比"), "Rabat": ("拉巴特", "拉巴特"), "Abuja": ("阿布札", "阿布贾"),
    "Jerusalem": ("耶路撒冷", "耶路撒冷"), "Naypyidaw": ("奈比多", "内比都"), "Yaoundé": ("雅溫德", "雅温得"),
    "Quito": ("基多", "基多"), "Kyiv": ("基輔", "基辅"), "Prague": ("布拉格", "布拉格"), "Seoul": ("首爾", "首尔"),
    "Mexico City": ("墨西哥城", "墨西哥城"), "Ho Chi Minh City": ("胡志明市", "胡志明市"),
    "Panama City": ("巴拿馬城", "巴拿马城"), "Guatemala City": ("瓜地馬拉市", "危地马拉城"),
    "Kuwait City": ("科威特市", "科威特城"), "Vatican City": ("梵蒂岡", "梵蒂冈"), "Santiago": ("聖地牙哥", "圣地亚哥"),
    "Bogotá": ("波哥大", "波哥大"), "Asunción": ("亞松森", "亚松森"), "San José": ("聖荷西", "圣何塞"),
    "Reykjavik": ("雷克雅維克", "雷克雅未克"), "Valletta": ("法勒他", "瓦莱塔"), "Nicosia": ("尼古西亞", "尼科西亚"),
    "Nur-Sultan": ("努爾蘇丹", "努尔苏丹"), "Astana": ("阿斯塔納", "阿斯塔纳"), "Kathmandu": ("加德滿都", "加德满都"),
    "Jakarta": ("雅加達", "雅加达"), "Manila": ("馬尼拉", "马尼拉"), "Yamoussoukro": ("雅穆索戈", "亚穆苏克罗"),
    "Sri Jayawardenapura Kotte": ("斯里賈亞瓦德納普拉科特", "斯里贾亚瓦德纳普拉科特"), "Colombo": ("可倫坡", "科伦坡"),
    "Sana'a": ("沙那", "萨那"), "Muscat": ("馬斯喀特", "马斯喀特"), "Porto-Novo": ("新港", "波多诺伏"),
    "City of San Marino": ("聖馬利諾", "圣马力诺"), "Addis Ababa": ("阿迪斯阿貝巴", "亚的斯亚贝巴"),
}
