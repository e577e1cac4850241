-- What people ask of accounts, and say about them.

-- limit, spent, held, presumed, level, why it is halted
local function balance(account, path)
  local halted = is_frozen(path) and 'frozen' or account.halted or account.exhausted == 1 and 'budget_exceeded' or false
  return { limit_of(account), account.spent, account.held, account.presumed, account.announced, halted }
end

-- What stands on the account of a swarm, which is a session as long as nothing is known of it.
local function balance_of(path)
  if not path[1].exists then
    path[1].session = 1
  end
  return balance(path[1], path)
end

-- balances: none, day or none, swarm.
function verbs.balances(_, day, _, path)
  if day < oldest_day() then
    return { 'not_retained', oldest_day() }
  end
  local answer = { balance_of(path) }
  for nth = 2, #path do
    answer[nth] = balance(path[nth], path_of(day, path[nth].swarm))
  end
  return { 'balances', day, answer }
end

-- statement: none, day or none, swarm; one within it to go on after or none, limit.
function verbs.statement(_, day, swarm, path)
  if day < oldest_day() then
    return { 'not_retained', oldest_day() }
  end
  local from = ARGV[12] == '' and string.format('[%06d %s/', day, swarm) or string.format('(%06d %s', day, ARGV[12])
  local last = '(' .. string.format('%06d %s0', day, swarm)
  local found = call('ZRANGEBYLEX', P .. 'budget:accounts', from, last, 'LIMIT', 0, tonumber(ARGV[13]))
  local within, some = {}, {}
  for nth, member in ipairs(found) do
    some[#some + 1] = path_of(day, string.sub(member, 8))
    if #some == 50 or nth == #found then
      read_more(some, {})
      for _, each in ipairs(some) do
        within[#within + 1] = { each[1].swarm, balance(each[1], each) }
      end
      some = {}
    end
  end
  return { 'statement', day, balance_of(path), within }
end

local function ruled(operation, swarm, params, severity)
  book.sequence, book.changed = book.sequence + 1, true
  journal { component = 'budget', operation = operation, subject = swarm, params = params, severity = severity }
end

-- Whether too much is said already to say something about another swarm.
local function says_too_much(account)
  return not account.said and book.rules + 1 > S.rules and { 'limit', 'rules', book.rules + 1 }
end

-- limit: none, none, swarm; the amount or none, as text.
function verbs.limit(_, day, swarm, path)
  local account, limit = path[1], tonumber(ARGV[12])
  if account.limit ~= limit then
    if says_too_much(account) then
      return says_too_much(account)
    end
    ruled('limit', swarm, { 'limit', ARGV[13] })
    account.limit = limit
    save_rule(account)
    if account.exists then
      local level = level_of(account)
      account.announced, account.exhausted = at_most(account.announced, level), level == EXHAUSTED and 1 or 0
      announce_level(account, level)
      save_account(account)
    end
  end
  return { 'balances', day, { balance_of(path) } }
end

-- halt: none, none, swarm; reason.
function verbs.halt(_, day, swarm, path)
  local account = path[1]
  if account.halted ~= ARGV[12] then
    if says_too_much(account) then
      return says_too_much(account)
    end
    ruled('halt', swarm, { 'reason', ARGV[12] }, 'HIGH')
    account.halted = ARGV[12]
    save_rule(account)
  end
  return { 'balances', day, { balance_of(path) } }
end

-- resume: none, none, swarm.
function verbs.resume(_, day, swarm, path)
  local account = path[1]
  if account.halted or account.exhausted == 1 or book.frozen > account.thawed then
    ruled('resume', swarm, {})
    account.halted, account.thawed = nil, book.frozen
    save_rule(account)
    if account.exhausted == 1 then
      account.exhausted = 0
      save_account(account)
    end
  end
  return { 'balances', day, { balance_of(path) } }
end
