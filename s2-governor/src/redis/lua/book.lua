-- The accounts of a fleet: what a step reads of them, and how it is written.
--
-- One hash, `budget`, has it all, so that a step reads and writes once: `m` the numbers of the book, `a<day>:<path>` an account,
-- `r<path>` what was said about a swarm for every day, `s<key>` a spend. Beside it: `budget:due`, open reservations by when they
-- expire; `budget:ended`, the spends that have ended, the oldest first; `budget:accounts`, `<day> <path>` in that order.

local DAY = 86400000000
local WITHIN, WARNED, EXHAUSTED = 0, 1, 2

-- epoch, sequence, next expiry, since when frozen, open reservations, ended ones that are remembered, how many have ended,
-- accounts, the oldest day that is kept; then the lives of the server: epoch, sequence in the beginning, whether it is known
-- that something of it was lost.
local BOOK = '>I7I7I7I7I7I7I7I7I4'
local LIFE = '>I7I7B'
local MOST_LIVES = 16
-- spent, held, presumed, level that was announced, whether it is exhausted, whether it is a session's
local ACCOUNT = '>I7I7I7BBB'
-- whether there is a limit, the limit, what it was thawed after, whether it is halted; then the reason
local RULE = '>BI7I7B'
-- state, what becomes of it, whether it was reserved, amount, until when, when it ended, day, session, trace
local SPEND = '>BBBI7I7I7I4ss'
-- cost, what remains, level, which account on the way up, what that has spent and may spend
local POSTED = '>I7I7BBI7I7'

local HELD, PRESUMED, LAPSED, RELEASED, SETTLED = 1, 2, 3, 4, 5
local PRESUME = 1

-- The settings of whoever calls, and what this step has read.
local S, book, accounts, rules, spends, fields
-- What this server process has seen itself of each fleet's book: its epoch and sequence.
local alive = {}

local ledgers = {}

local function read_ledger(text)
  local numbers = {}
  for number in string.gmatch(text, '%d+') do
    numbers[#numbers + 1] = tonumber(number)
  end
  ledgers[text] = { session_limit = numbers[1], warn_percent = numbers[2], kept_days = numbers[3], remembered = numbers[4],
    open = numbers[5], accounts = numbers[6], window = numbers[7] }
  return ledgers[text]
end

local function day_of(time)
  return (time - time % DAY) / DAY
end

local function oldest_day()
  return at_least(day_of(now) - S.kept_days, 0)
end

-- The paths of a swarm and of those that contain it, innermost first.
local paths, path_count = {}, 0

local function path_of(swarm)
  local path = paths[swarm]
  if not path then
    if path_count >= 1000 then
      paths, path_count = {}, 0
    end
    path = {}
    local rest = swarm
    while rest do
      path[#path + 1] = rest
      rest = string.match(rest, '^(.*)/[^/]*$')
    end
    paths[swarm], path_count = path, path_count + 1
  end
  return path
end

local function account_name(day, swarm)
  return 'a' .. day .. ':' .. swarm
end

local function unpack_book(packed)
  book = { lives = {} }
  local at
  book.epoch, book.sequence, book.due, book.frozen, book.open, book.ended, book.ends, book.accounts, book.oldest, at =
    struct.unpack(BOOK, packed)
  while at <= #packed do
    local life = {}
    life.epoch, life.begun, life.lost, at = struct.unpack(LIFE, packed, at)
    book.lives[#book.lives + 1] = life
  end
end

local function keep_account(name, day, swarm, packed)
  local account = { name = name, day = day, swarm = swarm, exists = packed and true or false }
  if packed then
    account.spent, account.held, account.presumed, account.announced, account.exhausted, account.session =
      struct.unpack(ACCOUNT, packed)
  else
    account.spent, account.held, account.presumed, account.announced, account.exhausted, account.session = 0, 0, 0, 0, 0, 0
  end
  accounts[name] = account
end

local function keep_rule(swarm, packed)
  local rule = { thawed = 0 }
  if packed then
    local limited, limit, thawed, halted, at = struct.unpack(RULE, packed)
    rule.limit, rule.thawed = limited == 1 and limit or nil, thawed
    rule.halted = halted == 1 and string.sub(packed, at) or nil
  end
  rules[swarm] = rule
end

local function keep_spend(key, packed)
  local spend = packed and { key = key } or false
  if spend then
    local at
    spend.state, spend.expiry, spend.reserved, spend.amount, spend.till, spend.ended, spend.day, spend.session, spend.trace, at =
      struct.unpack(SPEND, packed)
    if spend.state == SETTLED then
      spend.posted = string.sub(packed, at)
    end
  end
  spends[key] = spend
end

-- Reads what is not known yet: of these {day, path} the accounts and what was said about them, and these spends.
local function read_more(wanted, keys, with_book)
  local names = with_book and { 'm' } or {}
  for _, key in ipairs(keys) do
    names[#names + 1] = 's' .. key
  end
  for _, each in ipairs(wanted) do
    for _, swarm in ipairs(each[2]) do
      names[#names + 1], names[#names + 2] = account_name(each[1], swarm), 'r' .. swarm
    end
  end
  if #names == 0 then
    return
  end
  local found, nth = call('HMGET', P .. 'budget', unpack(names)), 0
  local function next_found()
    nth = nth + 1
    return found[nth]
  end
  if with_book then
    local packed = next_found()
    if packed then
      unpack_book(packed)
    else
      book = { epoch = 0, sequence = 0, due = NEVER, frozen = 0, open = 0, ended = 0, ends = 0, accounts = 0, oldest = 0,
        lives = {} }
    end
  end
  for _, key in ipairs(keys) do
    keep_spend(key, next_found())
  end
  for _, each in ipairs(wanted) do
    for _, swarm in ipairs(each[2]) do
      local packed, said = next_found(), next_found()
      local name = account_name(each[1], swarm)
      if not accounts[name] then
        keep_account(name, each[1], swarm, packed)
      end
      if not rules[swarm] then
        keep_rule(swarm, said)
      end
    end
  end
end

-- Begins with a book, a spend and the accounts of a path.
local function open_book(key, day, swarm)
  S = ledgers[ARGV[6]] or read_ledger(ARGV[6])
  accounts, rules, spends, fields = {}, {}, {}, {}
  read_more(swarm == '' and {} or { { day, path_of(swarm) } }, key == '' and {} or { key }, true)
end

local function write_field(name, value)
  fields[#fields + 1], fields[#fields + 2] = name, value
end

local function save_account(account)
  if not account.exists then
    account.exists, book.accounts = true, book.accounts + 1
    call('ZADD', P .. 'budget:accounts', 0, string.format('%06d %s', account.day, account.swarm))
  end
  account.changed = true
end

local function save_rule(swarm)
  local rule = rules[swarm]
  if not rule.limit and not rule.halted and rule.thawed == 0 then
    call('HDEL', P .. 'budget', 'r' .. swarm)
  else
    write_field('r' .. swarm, struct.pack(RULE, rule.limit and 1 or 0, rule.limit or 0, rule.thawed, rule.halted and 1 or 0) ..
      (rule.halted or ''))
  end
end

local function save_spend(spend)
  spends[spend.key] = spend
  write_field('s' .. spend.key, struct.pack(SPEND, spend.state, spend.expiry, spend.reserved, spend.amount, spend.till,
    spend.ended, spend.day, spend.session, spend.trace) .. (spend.posted or ''))
end

local function write_fields()
  for from = 1, #fields, 2000 do
    call('HSET', P .. 'budget', unpack(fields, from, at_most(from + 1999, #fields)))
  end
  fields = {}
end

local function save_book()
  for name, account in pairs(accounts) do
    if account.changed then
      account.changed = false
      write_field(name, struct.pack(ACCOUNT, account.spent, account.held, account.presumed, account.announced,
        account.exhausted, account.session))
    end
  end
  if book.changed or #fields > 0 then
    book.changed = false
    local lives = {}
    for nth, life in ipairs(book.lives) do
      lives[nth] = struct.pack(LIFE, life.epoch, life.begun, life.lost)
    end
    write_field('m', struct.pack(BOOK, book.epoch, book.sequence, book.due, book.frozen, book.open, book.ended, book.ends,
      book.accounts, book.oldest) .. table.concat(lives))
  end
  write_fields()
  local seen = alive[P]
  if seen then
    seen.epoch, seen.sequence = book.epoch, book.sequence
  else
    alive[P] = { epoch = book.epoch, sequence = book.sequence }
  end
end
