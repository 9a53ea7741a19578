"""Names, notes and tool specifications written for this project."""

NAMES = (
    "Anna Ben Carla David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Quinn Rosa Sam Tina Uma "
    "Victor Wendy Xavier Yara Zoe Alice Bob Clara Daniel Elena Frank Gina Hugo Ivan Julia Karl Laura Max Nina Oscar "
    "Peter Rita Simon Thomas Ursula Vera Walter Amy Brian Chloe Derek Ella Fiona George Hannah Ian Jane Kevin Lily "
    "Mark Nora Owen Pia Robert Sara Tom Lucy Adam Bella Chris Diana Eric Flora Gary Heidi Igor Jenny Ken Lena Mike "
    "Nick Olga Pedro Ralph Sophie Tim Vivian Will Alex Betty Carl Dora Edgar Eva Fred Greta Hans Ida James Jessica "
    "John Joseph Kim Linda Louis Martin Mary Michael Monica Natalie Nathan Oliver Pamela Patrick Philip Rachel "
    "Richard Ruth Sandra Scott Stephen Susan Teresa Tony Tracy Vincent William Yvonne Zack Arthur Barbara Bruno "
    "Camilla Cecil Colin Cora Dennis Doris Edith Edward Elisa Ethan Eugene Florence Gerald Gloria Harold Harriet "
    "Helen Irene Isaac Jacob Jasmine Jeremy Joan Joel Judith Keith Larry Leonard Lisa Lloyd Lorenzo Luke Mabel "
    "Marco Marion Matthew Melissa Mila Milton Morgan Nadia Neil Nigel Norman Otto Penny Phoebe Roger Ronald Rosalind "
    "Roy Rufus Russell Selma Silvia Stella Sven Tamara Theo Toby Travis Valerie Wanda Wesley Winston Yusuf").split()
NAMES_ZH = ("小明 小華 小美 小芳 小強 小玲 小文 小英 小龍 小雨 小雪 小月 小山 小海 小花 小白 小林 小李 小王 小張 小陳 "
            "志明 志強 美玲 美華 文華 文英 建國 建文 大明 大山 家明 家文 雅文 雅玲 心怡 心美 春花 春雨 天明 天雨 國強 國華 "
            "明月 明華 秀英 秀蘭 麗華 麗文 玉蘭 玉華 子文 子明 安安 安妮 可心 可人 立人 立文 正明 正文").split()
FRUITS = ("apple banana cherry grape lemon mango melon orange peach pear plum fig kiwi lime berry coconut apricot "
          "papaya olive date").split()
UNITS = [("kilometers", "meters", 1000), ("meters", "centimeters", 100), ("kilograms", "grams", 1000),
         ("hours", "minutes", 60), ("minutes", "seconds", 60), ("days", "hours", 24), ("weeks", "days", 7),
         ("years", "months", 12), ("dozens", "pieces", 12)]
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()

# One entry an intent: function names, description, parameters as (names, type, description, optional),
# question wordings over the value slots, tool result template and final answer template.
TOOLS = {
    "weather": {
        "names": ["get_weather", "get_current_weather", "weather", "weather_lookup", "lookup_weather"],
        "descriptions": ["Get the current weather of a city.", "Gets the current weather in the provided location.",
                         "Returns the weather for a city.", "Current weather by location."],
        "params": [(["location", "city", "place", "town"], "string",
                    ["The city", "City name", "The city and state, e.g. San Francisco, CA", "Name of the city"], "city")],
        "extra": [(["unit", "format", "units"], ["celsius", "fahrenheit"], "celsius")],
        "questions": ["What is the weather in {city}?", "What's the weather like in {city}?", "How is the weather in {city}?",
                      "Weather in {city}?", "Is it raining in {city}?", "Tell me the weather in {city}.",
                      "What is the weather in {city} today?", "weather in {city}", "How warm is it in {city}?",
                      "What is the weather like in {city} right now?", "Please check the weather in {city}."],
        "questions_tw": ["{city}的天氣怎麼樣？", "{city}今天天氣如何？", "請查{city}的天氣。", "{city}現在幾度？"]},
    "time": {
        "names": ["get_time", "get_current_time", "current_time", "clock"],
        "descriptions": ["Get the current time in a city.", "Returns the local time of a place.", "Current local time."],
        "params": [(["timezone", "city", "location", "place"], "string",
                    ["The city", "City name", "Place to get the time for"], "city")],
        "extra": [],
        "questions": ["What time is it in {city}?", "What is the time in {city}?", "Tell me the time in {city}.",
                      "Time in {city}?", "What's the current time in {city}?", "Which time do they have in {city}?"],
        "questions_tw": ["{city}現在幾點？", "現在{city}是幾點？", "請問{city}的時間？"]},
    "add": {
        "names": ["add", "add_numbers", "sum", "calculator_add", "plus"],
        "descriptions": ["Add two numbers.", "Adds two integers and returns the sum.", "Returns a + b."],
        "params": [(["a", "x", "first", "left"], "integer", ["First number", "The first addend"], "a"),
                   (["b", "y", "second", "right"], "integer", ["Second number", "The second addend"], "b")],
        "extra": [],
        "questions": ["Use the tool to add {a} and {b}.", "Add {a} and {b} with the tool.",
                      "Call the function to add {a} and {b}.", "Use the function: {a} plus {b}.",
                      "With your tool, what is {a} + {b}?"],
        "questions_tw": ["請用工具計算 {a} + {b}。", "用工具把{a}和{b}加起來。"]},
    "search": {
        "names": ["search", "web_search", "search_web", "find_pages", "lookup"],
        "descriptions": ["Search the web.", "Searches the web for a query.", "Find pages about a topic."],
        "params": [(["query", "q", "text", "keywords"], "string", ["Search terms", "The query", "What to search for"], "phrase")],
        "extra": [],
        "questions": ["Search the web for {phrase}.", "Search for {phrase}.", "Look up {phrase}.", "Find pages about {phrase}.",
                      "Please search {phrase}", "Do a web search: {phrase}"],
        "questions_tw": ["請搜尋 {phrase}", "上網查 {phrase}"]},
    "email": {
        "names": ["send_email", "send_message", "email", "message"],
        "descriptions": ["Send an email.", "Sends a message to a person.", "Send a message."],
        "params": [(["to", "recipient", "name"], "string", ["Who gets it", "Name of the recipient", "The recipient"], "person"),
                   (["body", "text", "message", "content"], "string", ["The text", "Text of the message", "What to send"], "sentence")],
        "extra": [],
        "questions": ["Send {person} this message: {sentence}", "Write to {person}: {sentence}",
                      "Send a message to {person}: {sentence}", "Tell {person}: {sentence}", "Email {person}: {sentence}"],
        "questions_tw": ["傳訊息給 {person}：{sentence}", "寫信給 {person}：{sentence}"]},
    "note": {
        "names": ["save_note", "create_note", "add_note", "write_note"],
        "descriptions": ["Save a note.", "Creates a note with the given text.", "Stores a text."],
        "params": [(["text", "note", "content", "body"], "string", ["Text of the note", "The text to keep"], "sentence")],
        "extra": [],
        "questions": ["Save this note: {sentence}", "Make a note: {sentence}", "Note down: {sentence}", "Write a note: {sentence}",
                      "Please keep this note: {sentence}"],
        "questions_tw": ["記下這句話：{sentence}", "寫一個筆記：{sentence}"]},
    "timer": {
        "names": ["set_timer", "start_timer", "timer", "set_alarm"],
        "descriptions": ["Start a timer.", "Sets a timer.", "Starts a countdown of some minutes."],
        "params": [(["minutes", "duration", "length", "time"], "integer", ["Minutes", "Duration in minutes"], "n")],
        "extra": [],
        "questions": ["Set a timer for {n} minutes.", "Start a {n} minute timer.", "Timer for {n} minutes, please.",
                      "Wake me in {n} minutes.", "Set a {n} minute timer."],
        "questions_tw": ["設定{n}分鐘的計時器。", "請在{n}分鐘後叫我。"]},
    "stock": {
        "names": ["get_stock_price", "stock_price", "get_price", "quote"],
        "descriptions": ["Get the price of a stock.", "Returns the latest price of a ticker symbol."],
        "params": [(["symbol", "ticker", "code"], "string", ["Ticker symbol", "The ticker"], "ticker")],
        "extra": [],
        "questions": ["What is the stock price of {ticker}?", "Price of {ticker}?", "How much is a share of {ticker}?",
                      "Get the price of {ticker}.", "Check the stock {ticker}."],
        "questions_tw": ["{ticker} 的股價是多少？", "查一下 {ticker} 的股價。"]},
    "light": {
        "names": ["set_light", "switch_light", "light", "control_light"],
        "descriptions": ["Switch a light on or off.", "Controls the light in a room."],
        "params": [(["room", "location", "place"], "string", ["The room", "Room name"], "room"),
                   (["on", "state", "enabled"], "boolean", ["On or off", "True for on"], "on")],
        "extra": [],
        "questions": ["Turn {on} the light in the {room}.", "Switch {on} the light in the {room}.",
                      "Light {on} in the {room}, please.", "Please turn {on} the {room} light."],
        "questions_tw": []},
    "translate": {
        "names": ["translate", "translate_text", "translation"],
        "descriptions": ["Translate a text.", "Translates text into another language."],
        "params": [(["text", "sentence", "input"], "string", ["Text to translate", "The text"], "sentence"),
                   (["language", "target", "to"], "string", ["Target language", "The language"], "language")],
        "extra": [],
        "questions": ["Translate into {language}: {sentence}", "Translate to {language}: {sentence}",
                      "Put this into {language}: {sentence}"],
        "questions_tw": []},
    "convert": {
        "names": ["convert_currency", "convert", "exchange"],
        "descriptions": ["Convert an amount of money.", "Converts money from one currency to another."],
        "params": [(["amount", "value"], "number", ["The amount", "How much"], "n"),
                   (["from", "source", "from_currency"], "string", ["Source currency", "Currency code"], "from"),
                   (["to", "target", "to_currency"], "string", ["Target currency", "Currency code"], "to")],
        "extra": [],
        "questions": ["Convert {n} {from} to {to}.", "How much is {n} {from} in {to}?", "Change {n} {from} into {to}.",
                      "{n} {from} in {to}?"],
        "questions_tw": ["{n} {from} 是多少 {to}？"]},
    "play": {
        "names": ["play_music", "play", "play_song", "music"],
        "descriptions": ["Play a song.", "Plays music."],
        "params": [(["title", "song", "name", "track"], "string", ["Title of the song", "The song"], "phrase")],
        "extra": [],
        "questions": ["Play {phrase}.", "Play the song {phrase}.", "I want to hear {phrase}.", "Put on {phrase}, please."],
        "questions_tw": ["播放 {phrase}"]},
}
ROOMS = "kitchen,bedroom,bathroom,garden,office,hall,garage,cellar,library,dining room,living room,attic".split(",")
LANGUAGES = "French German Spanish Italian Dutch Greek Latin Polish Russian Japanese Korean Chinese Arabic Turkish".split()
CURRENCY_CODES = "USD EUR JPY GBP CHF CAD AUD TWD CNY KRW INR SEK NOK DKK PLN BRL MXN SGD HKD NZD".split()
CONDITIONS = "sunny cloudy rainy snowy windy foggy stormy clear".split()
